"""A ledger that is sealed and can forget, policies that are activated, retention, statements."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for statement in (
        LEDGER, TREE, EXACT, COLUMNS, TABLES, INDEXES, APPEND_ONLY, FORGET, GRANTS, RAW_VECTORS
    ):  # fmt: skip
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("What was erased does not come back: restore a backup instead.")


# Entries of before get a commitment now: it proves that they stayed as they are from here on.
LEDGER = """
CREATE TABLE ledger_payloads (
    entry_id bigint PRIMARY KEY REFERENCES ledger,
    salt bytea NOT NULL CHECK (octet_length(salt) = 32),
    actor varchar NOT NULL,
    details json NOT NULL
);
COMMENT ON COLUMN ledger_payloads.details IS 'Text, as it was committed to.';
INSERT INTO ledger_payloads (entry_id, salt, actor, details)
SELECT id, uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()), actor, details::json
FROM ledger;

DROP TRIGGER append_only ON ledger;
ALTER TABLE ledger ADD commitment bytea CHECK (octet_length(commitment) = 32);
COMMENT ON COLUMN ledger.commitment IS 'SHA-256 of salt and payload.';
UPDATE ledger SET commitment = sha256(
    salt || convert_to(
        format('{"actor":%s,"details":%s}', to_json(p.actor), p.details::text), 'UTF8'
    )
) FROM ledger_payloads p WHERE p.entry_id = ledger.id;
ALTER TABLE ledger ALTER commitment SET NOT NULL, DROP actor, DROP details;
"""

TREE = """
CREATE TABLE ledger_unsealed (entry_id bigint PRIMARY KEY REFERENCES ledger)
    WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
INSERT INTO ledger_unsealed SELECT id FROM ledger;

CREATE TABLE ledger_sealed (
    position bigint PRIMARY KEY CHECK (position >= 0),
    entry_id bigint NOT NULL UNIQUE REFERENCES ledger
);

CREATE TABLE ledger_tiles (
    level smallint NOT NULL,
    number bigint NOT NULL,
    hashes bytea NOT NULL
        CHECK (octet_length(hashes) % 32 = 0 AND octet_length(hashes) BETWEEN 32 AND 8192),
    PRIMARY KEY (level, number)
);
COMMENT ON COLUMN ledger_tiles.hashes IS '32 bytes each; the last tile grows.';

CREATE TABLE ledger_checkpoints (
    size bigint PRIMARY KEY,
    root bytea NOT NULL CHECK (octet_length(root) = 32),
    note varchar NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
);
COMMENT ON COLUMN ledger_checkpoints.note IS 'C2SP tlog-checkpoint, signed.';
COMMENT ON COLUMN ledger_checkpoints.published_at IS 'Outside the database.';

CREATE TABLE ledger_signers (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    vkey varchar NOT NULL UNIQUE,
    entry_id bigint NOT NULL REFERENCES ledger,
    added_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN ledger_signers.vkey IS 'C2SP signed-note verifier key.';
COMMENT ON COLUMN ledger_signers.entry_id IS 'Signer added.';
"""

# jsonb rewrites what it is given; a digest needs the text that was written.
EXACT = """
ALTER TABLE explanations ALTER record TYPE json USING record::json;
COMMENT ON COLUMN explanations.record IS 'Text, as it was committed to.';
"""

COLUMNS = """
ALTER TABLE images ALTER digest DROP NOT NULL, ADD bytes_gone_at timestamptz;
COMMENT ON COLUMN images.digest IS 'Null: erased, with everything that was computed of it.';
COMMENT ON COLUMN images.bytes_gone_at IS
    'The storage keeps them no more: erased, or their time was over.';
ALTER TABLE images ADD parts_gone varchar[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN images.parts_gone IS
    'bytes, embeddings, explanations: looked for and deleted since it was last judged.';
ALTER TABLE items ADD supersedes bigint REFERENCES items, ADD content_date date;
COMMENT ON COLUMN items.supersedes IS 'The item that was judged anew, under another policy.';
COMMENT ON COLUMN items.content_date IS 'When its user put it up.';
ALTER TABLE people DROP CONSTRAINT people_role_check, ADD CHECK (role IN
    ('admin', 'policy_editor', 'moderator', 'senior', 'auditor', 'custodian'));
"""

TABLES = """
CREATE TABLE policy_activations (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name varchar NOT NULL,
    policy_id integer NOT NULL REFERENCES policies,
    before_id integer REFERENCES policies,
    flags varchar NOT NULL CHECK (flags IN ('keep', 'reevaluate', 'reopen')),
    reason varchar NOT NULL,
    proposed_by varchar NOT NULL,
    proposed_at timestamptz NOT NULL DEFAULT now(),
    activated_by varchar,
    activated_at timestamptz,
    withdrawn_by varchar,
    withdrawn_at timestamptz,
    batch_id uuid REFERENCES batches,
    reached bigint NOT NULL DEFAULT 0,
    touched integer NOT NULL DEFAULT 0,
    left_alone integer NOT NULL DEFAULT 0,
    done_at timestamptz,
    CHECK (activated_at IS NULL OR withdrawn_at IS NULL)
);
COMMENT ON COLUMN policy_activations.before_id IS 'The version that it takes the place of.';
COMMENT ON COLUMN policy_activations.flags IS
    'keep, reevaluate or reopen: what becomes of them.';
COMMENT ON COLUMN policy_activations.activated_by IS 'Somebody else, with four eyes.';
COMMENT ON COLUMN policy_activations.batch_id IS 'Of the items that are judged anew.';
COMMENT ON COLUMN policy_activations.reached IS 'The last item that was seen to.';
COMMENT ON COLUMN policy_activations.touched IS 'Items judged anew, reopened.';
COMMENT ON COLUMN policy_activations.left_alone IS 'Items whose vectors or bytes are gone.';

CREATE TABLE retention_rules (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    class_name varchar,
    outcome varchar
        CHECK (outcome IN ('clear', 'flagged', 'undetermined', 'confirmed', 'overturned')),
    parts varchar[] NOT NULL
        CHECK (cardinality(parts) > 0 AND parts <@ '{bytes,embeddings,explanations}'),
    days integer NOT NULL CHECK (days >= 0),
    created_by varchar NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz
);
COMMENT ON COLUMN retention_rules.class_name IS 'Null: every class.';
COMMENT ON COLUMN retention_rules.outcome IS
    'clear, flagged, undetermined, confirmed or overturned; null: any.';
COMMENT ON COLUMN retention_rules.parts IS 'bytes, embeddings, explanations.';
COMMENT ON COLUMN retention_rules.days IS 'After the last thing that happened to the item.';

CREATE TABLE legal_holds (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item_id bigint NOT NULL REFERENCES items,
    reason varchar NOT NULL,
    created_by varchar NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    released_by varchar,
    released_at timestamptz
);

CREATE TABLE loose_bytes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    due_at timestamptz NOT NULL
);

CREATE TABLE erasures (
    id uuid PRIMARY KEY,
    item_id bigint NOT NULL REFERENCES items,
    image_id bigint REFERENCES images,
    digest bytea CHECK (octet_length(digest) = 32),
    reason varchar NOT NULL,
    requested_by varchar NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    done_at timestamptz,
    receipt jsonb
);
COMMENT ON COLUMN erasures.image_id IS 'Null: the item never had one.';
COMMENT ON COLUMN erasures.digest IS 'Until the storage has forgotten it too.';

CREATE TABLE sealed_items (
    item_id bigint PRIMARY KEY REFERENCES items,
    image_id bigint NOT NULL REFERENCES images,
    class_name varchar NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT now(),
    preserve_until timestamptz NOT NULL
);

CREATE TABLE statements (
    puid uuid PRIMARY KEY,
    item_id bigint NOT NULL REFERENCES items,
    review_id bigint REFERENCES reviews,
    language varchar NOT NULL,
    issued_at timestamptz NOT NULL DEFAULT now(),
    document json NOT NULL,
    notice varchar NOT NULL,
    exported_at timestamptz,
    withdrawn_at timestamptz
);
COMMENT ON COLUMN statements.puid IS 'Of the decision.';
COMMENT ON COLUMN statements.review_id IS 'Null: no person decided.';
COMMENT ON COLUMN statements.language IS 'Of the notice, one after another: en,de.';
COMMENT ON COLUMN statements.document IS 'Text, as it was committed to.';
COMMENT ON COLUMN statements.notice IS 'For the user who is affected, with redress.';
COMMENT ON COLUMN statements.exported_at IS 'Written for the database''s.';
COMMENT ON COLUMN statements.withdrawn_at IS 'The restriction was lifted.';

CREATE TABLE statements_due (
    item_id bigint PRIMARY KEY REFERENCES items,
    problem varchar
);
COMMENT ON COLUMN statements_due.problem IS 'Why none could be issued; it waits.';
"""

INDEXES = """
CREATE INDEX checkpoints_to_publish ON ledger_checkpoints (size) WHERE published_at IS NULL;
CREATE INDEX items_that_supersede ON items (supersedes) WHERE supersedes IS NOT NULL;
CREATE INDEX items_judged ON items USING brin (judged_at) WITH (autosummarize = true);
CREATE INDEX reviews_decided ON reviews USING brin (decided_at) WITH (autosummarize = true);
CREATE INDEX activations_of_name ON policy_activations (name, id);
CREATE UNIQUE INDEX one_proposal_of_name ON policy_activations (name)
    WHERE activated_at IS NULL AND withdrawn_at IS NULL;
CREATE INDEX activations_at_work ON policy_activations (id) WHERE done_at IS NULL;
CREATE UNIQUE INDEX one_hold_of_item ON legal_holds (item_id) WHERE released_at IS NULL;
CREATE INDEX images_to_expire ON images (id)
    WHERE NOT parts_gone @> '{bytes,embeddings,explanations}';
CREATE INDEX loose_of_digest ON loose_bytes (digest);
CREATE INDEX loose_due ON loose_bytes (due_at);
CREATE INDEX erasures_of_item ON erasures (item_id);
CREATE INDEX erasures_of_image ON erasures (image_id);
CREATE INDEX erasures_in_order ON erasures (requested_at, id);
CREATE INDEX erasures_to_do ON erasures (id) WHERE done_at IS NULL;
CREATE INDEX sealed_until ON sealed_items (preserve_until);
CREATE INDEX sealed_of_image ON sealed_items (image_id);
CREATE INDEX statements_in_order ON statements (issued_at, puid);
CREATE INDEX statements_to_export ON statements (issued_at, puid) WHERE exported_at IS NULL;
CREATE INDEX statements_of_item ON statements (item_id);
CREATE UNIQUE INDEX one_standing_statement ON statements (item_id) WHERE withdrawn_at IS NULL;
"""

APPEND_ONLY = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_the_ledger();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_sealed
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_the_ledger();
CREATE TRIGGER append_only BEFORE UPDATE OF size, root, note, at OR DELETE OR TRUNCATE
    ON ledger_checkpoints FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_the_ledger();
CREATE TRIGGER never_changed BEFORE UPDATE OR TRUNCATE ON ledger_payloads
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_the_ledger();
"""

# The service may delete nothing of these by itself: only with an entry, in the same transaction,
# that says so.
FORGET = """
CREATE FUNCTION require_erased(item bigint) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$ BEGIN
    IF NOT EXISTS (
        SELECT FROM ledger WHERE item_id = item AND event = 'erased' AND at = now()
    ) THEN
        RAISE EXCEPTION 'Item % has no entry "erased" in this transaction.', item
            USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;

CREATE FUNCTION erase_payloads(item bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE gone bigint;
BEGIN
    PERFORM require_erased(item);
    DELETE FROM ledger_payloads USING ledger
        WHERE ledger.id = entry_id AND ledger.item_id = item AND ledger.event <> 'erased';
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

CREATE FUNCTION erase_words(item bigint, written varchar) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE gone bigint;
BEGIN
    PERFORM require_erased(item);
    CASE written
    WHEN 'reviews' THEN
        UPDATE reviews SET reason = NULL, note = NULL
            WHERE item_id = item AND (reason IS NOT NULL OR note IS NOT NULL);
    WHEN 'appeals' THEN
        UPDATE appeals SET statement = '' WHERE item_id = item AND statement <> '';
    WHEN 'holds' THEN
        UPDATE legal_holds SET reason = '' WHERE item_id = item AND reason <> '';
    WHEN 'webhooks' THEN  -- what a platform has to know to find its own item again stays
        UPDATE outbox SET payload = jsonb_build_object('source', '', 'erased', true) || (
            SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(payload)
            WHERE key IN ('item', 'batch', 'verdict', 'class', 'decision', 'final', 'appeal',
                          'upheld', 'list_entry', 'puid')
        ) WHERE item_id = item;
    END CASE;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

CREATE FUNCTION erase_list_entries(item bigint) RETURNS integer[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE gone integer[];
BEGIN
    PERFORM require_erased(item);
    WITH blank AS (
        UPDATE list_entries SET image_digest = NULL, pdq = NULL, vector = NULL, reason = '',
            removed_at = coalesce(removed_at, clock_timestamp())
        WHERE image_digest = (
            SELECT digest FROM images JOIN items ON images.id = image_id WHERE items.id = item
        )
        RETURNING id
    )
    SELECT coalesce(array_agg(id ORDER BY id), '{}') INTO gone FROM blank;
    RETURN gone;
END $$;

CREATE FUNCTION forget_image(image bigint, parts varchar[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE encoder integer; more bigint; gone bigint := 0;
BEGIN
    IF NOT EXISTS (
        SELECT FROM ledger JOIN items ON items.id = ledger.item_id
        WHERE items.image_id = image AND event IN ('erased', 'expired', 'locked away')
          AND ledger.at = now()
    ) THEN
        RAISE EXCEPTION 'Image % has no entry in this transaction that lets it go.', image
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF 'explanations' = ANY (parts) THEN
        DELETE FROM explanations WHERE item_id IN (SELECT id FROM items WHERE image_id = image);
        GET DIAGNOSTICS gone = ROW_COUNT;
    END IF;
    FOR encoder IN SELECT id FROM encoders WHERE parts && '{embeddings,scores}' LOOP
        IF 'embeddings' = ANY (parts) THEN
            DELETE FROM embeddings WHERE encoder_id = encoder AND image_id = image;
            GET DIAGNOSTICS more = ROW_COUNT;
            gone := gone + more;
        END IF;
        IF 'scores' = ANY (parts) THEN
            DELETE FROM scores WHERE encoder_id = encoder AND image_id = image
                AND class_id IN (SELECT id FROM policy_classes);
            GET DIAGNOSTICS more = ROW_COUNT;
            gone := gone + more;
        END IF;
    END LOOP;
    RETURN gone;
END $$;

-- What was said stays as it was said; it can be taken away altogether, by the function above.
CREATE OR REPLACE FUNCTION keep_reviews_final() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (OLD.settled_at IS NOT NULL OR OLD.undone_at IS NOT NULL)
        AND (NEW.reason IS NOT NULL OR NEW.note IS NOT NULL
             OR to_jsonb(NEW) - '{reason,note}'::text[] <> to_jsonb(OLD) - '{reason,note}'::text[]
             OR (OLD.reason IS NULL AND OLD.note IS NULL)) THEN
        RAISE EXCEPTION 'Review % has taken effect or was undone; it stays as it is.', OLD.id
            USING ERRCODE = 'insufficient_privilege', HINT = 'Decide again instead.';
    END IF;
    RETURN NEW;
END $$;
"""

GRANTS = """
GRANT SELECT ON ledger, ledger_payloads TO filter_service_app;
GRANT USAGE ON SEQUENCE ledger_id_seq TO filter_service_app;
GRANT SELECT, INSERT ON ledger_payloads, ledger_sealed, ledger_checkpoints, ledger_signers,
    policy_activations, retention_rules, legal_holds, erasures, sealed_items, statements
    TO filter_service_app;
GRANT SELECT, INSERT, DELETE ON ledger_unsealed TO filter_service_app;
GRANT SELECT, INSERT, UPDATE ON ledger_tiles TO filter_service_app;
GRANT UPDATE (published_at) ON ledger_checkpoints TO filter_service_app;
GRANT UPDATE (activated_by, activated_at, withdrawn_by, withdrawn_at, before_id, batch_id, reached,
    touched, left_alone, done_at) ON policy_activations TO filter_service_app;
GRANT UPDATE (removed_at) ON retention_rules TO filter_service_app;
GRANT UPDATE (released_by, released_at) ON legal_holds TO filter_service_app;
GRANT UPDATE (digest, done_at, receipt) ON erasures TO filter_service_app;
GRANT UPDATE (exported_at, withdrawn_at) ON statements TO filter_service_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON statements_due TO filter_service_app;
GRANT UPDATE (digest, bytes_gone_at, parts_gone) ON images TO filter_service_app;
GRANT SELECT, INSERT, DELETE ON loose_bytes TO filter_service_app;
REVOKE EXECUTE ON FUNCTION require_erased, erase_payloads, erase_words, erase_list_entries,
    forget_image FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_payloads, erase_words, erase_list_entries, forget_image
    TO filter_service_app;
"""

# Comparing policies reads a million vectors: their own bytes cost a third of the type's output
# function, which looks at each number. Only a superuser may allow it; without, it takes longer.
RAW_VECTORS = """
DO $$ BEGIN
    CREATE CAST (halfvec AS bytea) WITHOUT FUNCTION;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'Vectors are read by halfvec_send: the cast to bytea wants a superuser.';
END $$
"""
