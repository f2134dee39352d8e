"""A ledger that is sealed and can forget, policies that are activated, retention, statements."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for statement in (LEDGER, TREE, EXACT, COLUMNS, TABLES, INDEXES, APPEND_ONLY, FORGET, GRANTS):
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
    added_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN ledger_signers.vkey IS 'C2SP signed-note verifier key.';
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

CREATE TABLE erasures (
    id uuid PRIMARY KEY,
    item_id bigint NOT NULL REFERENCES items,
    image_id bigint NOT NULL REFERENCES images,
    digest bytea CHECK (octet_length(digest) = 32),
    reason varchar NOT NULL,
    requested_by varchar NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    done_at timestamptz,
    receipt jsonb
);
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
    exported_at timestamptz
);
COMMENT ON COLUMN statements.puid IS 'Of the decision.';
COMMENT ON COLUMN statements.review_id IS 'Null: no person decided.';
COMMENT ON COLUMN statements.document IS 'Text, as it was committed to.';
COMMENT ON COLUMN statements.notice IS 'For the user who is affected, with redress.';
COMMENT ON COLUMN statements.exported_at IS 'Written for the database''s.';
"""

INDEXES = """
CREATE INDEX checkpoints_to_publish ON ledger_checkpoints (size) WHERE published_at IS NULL;
CREATE INDEX items_that_supersede ON items (supersedes) WHERE supersedes IS NOT NULL;
CREATE INDEX activations_of_name ON policy_activations (name, id);
CREATE UNIQUE INDEX one_proposal_of_name ON policy_activations (name)
    WHERE activated_at IS NULL AND withdrawn_at IS NULL;
CREATE INDEX activations_at_work ON policy_activations (id) WHERE done_at IS NULL;
CREATE UNIQUE INDEX one_hold_of_item ON legal_holds (item_id) WHERE released_at IS NULL;
CREATE INDEX erasures_of_item ON erasures (item_id);
CREATE INDEX sealed_until ON sealed_items (preserve_until);
CREATE INDEX sealed_of_image ON sealed_items (image_id);
CREATE INDEX statements_in_order ON statements (issued_at, puid);
CREATE INDEX statements_of_item ON statements (item_id);
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
CREATE FUNCTION erase_payloads(item bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE gone bigint;
BEGIN
    IF NOT EXISTS (
        SELECT FROM ledger WHERE item_id = item AND event = 'erased' AND at = now()
    ) THEN
        RAISE EXCEPTION 'Item % has no entry "erased" in this transaction.', item
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM ledger_payloads USING ledger
        WHERE ledger.id = entry_id AND ledger.item_id = item AND ledger.event <> 'erased';
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

CREATE FUNCTION forget_image(image bigint, parts varchar[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE encoder integer;
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
    END IF;
    IF 'embeddings' = ANY (parts) THEN
        FOR encoder IN SELECT id FROM encoders LOOP
            DELETE FROM embeddings WHERE encoder_id = encoder AND image_id = image;
        END LOOP;
    END IF;
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
    touched, done_at) ON policy_activations TO filter_service_app;
GRANT UPDATE (removed_at) ON retention_rules TO filter_service_app;
GRANT UPDATE (released_by, released_at) ON legal_holds TO filter_service_app;
GRANT UPDATE (digest, done_at, receipt) ON erasures TO filter_service_app;
GRANT UPDATE (exported_at) ON statements TO filter_service_app;
GRANT UPDATE (digest, bytes_gone_at) ON images TO filter_service_app;
REVOKE EXECUTE ON FUNCTION erase_payloads, forget_image FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_payloads, forget_image TO filter_service_app;
"""
