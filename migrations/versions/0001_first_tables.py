"""The first tables, the role that the service works under, and the ledger's triggers."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    for statement in (EXTENSION, ROLE, TABLES, INDEXES, LEDGER, REGISTER, INDEX, GRANTS):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("The first migration has nothing before it: drop the database.")


EXTENSION = "CREATE EXTENSION IF NOT EXISTS vector"

# Roles belong to the whole server, where another database may be migrated at the same moment.
ROLE = """
DO $$ BEGIN
    CREATE ROLE filter_service_app NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END $$;
GRANT filter_service_app TO CURRENT_USER;
"""

TABLES = """
CREATE TYPE verdict AS ENUM ('clear', 'flagged', 'undetermined');

CREATE TABLE images (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    bytes bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE policies (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    name varchar NOT NULL,
    document jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE policy_classes (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    policy_id integer NOT NULL REFERENCES policies,
    position smallint NOT NULL,
    name varchar NOT NULL,
    UNIQUE (policy_id, name)
);

CREATE TABLE encoders (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint bytea NOT NULL UNIQUE CHECK (octet_length(fingerprint) = 32),
    name varchar NOT NULL,
    dim integer NOT NULL CHECK (dim BETWEEN 1 AND 4000),  -- what an index on halfvec can hold
    details jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE batches (
    id uuid PRIMARY KEY,
    policy_id integer NOT NULL REFERENCES policies,
    label varchar NOT NULL,
    priority smallint NOT NULL,
    submitted_at timestamptz NOT NULL DEFAULT now(),
    cancelled_at timestamptz,
    total integer
);
COMMENT ON COLUMN batches.total IS 'Items; null while they still arrive.';

CREATE TABLE items (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch_id uuid NOT NULL REFERENCES batches,
    image_id bigint REFERENCES images,
    source varchar NOT NULL,
    verdict verdict,
    reason varchar,
    judged_at timestamptz,
    encoder_id integer REFERENCES encoders,
    class_id integer REFERENCES policy_classes,
    margin double precision,
    probability double precision,
    CHECK ((verdict IS NULL) = (judged_at IS NULL)),
    CHECK ((reason IS NOT NULL) = (verdict IS NOT DISTINCT FROM 'undetermined'))
);
COMMENT ON COLUMN items.image_id IS 'Null for a file that could not be read.';
COMMENT ON COLUMN items.source IS 'The file''s name as submitted.';
COMMENT ON COLUMN items.reason IS 'Why undetermined.';
COMMENT ON COLUMN items.class_id IS 'Of the worst score, with margin and probability.';

CREATE TABLE queue (
    item_id bigint PRIMARY KEY REFERENCES items,
    priority smallint NOT NULL,
    queued_at timestamptz NOT NULL DEFAULT now(),
    attempts smallint NOT NULL DEFAULT 0,
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    worker uuid,
    problem varchar
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON COLUMN queue.attempts IS 'Claims so far.';
COMMENT ON COLUMN queue.leased_until IS 'Free from then on.';
COMMENT ON COLUMN queue.worker IS 'Who holds the lease.';
COMMENT ON COLUMN queue.problem IS 'Why the last attempt was put off.';

CREATE TABLE embeddings (
    encoder_id integer NOT NULL REFERENCES encoders,
    image_id bigint NOT NULL REFERENCES images,
    frame integer NOT NULL,
    vector halfvec NOT NULL,
    exact_vector vector,
    PRIMARY KEY (encoder_id, image_id, frame)
) PARTITION BY LIST (encoder_id);
COMMENT ON COLUMN embeddings.exact_vector IS
    'Where it was computed in float32; else the other came from less.';
-- The one that is searched stays in the row; the other is read seldom and lives beside the table.
ALTER TABLE embeddings
    ALTER vector SET STORAGE PLAIN,
    ALTER exact_vector SET STORAGE EXTERNAL;

CREATE TABLE scores (
    encoder_id integer NOT NULL,
    class_id integer NOT NULL,
    image_id bigint NOT NULL,
    margin double precision NOT NULL,
    frame integer NOT NULL,
    exact boolean NOT NULL,
    PRIMARY KEY (encoder_id, class_id, image_id)
) PARTITION BY LIST (encoder_id);

CREATE TABLE explanations (
    item_id bigint REFERENCES items,
    class_id integer REFERENCES policy_classes,
    encoder_id integer REFERENCES encoders,
    faithful boolean NOT NULL,
    record jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (item_id, class_id, encoder_id)
);

CREATE TABLE phrases (
    encoder_id integer REFERENCES encoders,
    text varchar,
    vector vector NOT NULL,
    PRIMARY KEY (encoder_id, text)
);

CREATE TABLE ledger (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    event varchar NOT NULL,
    actor varchar NOT NULL,
    item_id bigint,
    batch_id uuid,
    details jsonb NOT NULL DEFAULT '{}'
);
"""

INDEXES = """
CREATE INDEX items_of_batch ON items (batch_id, id);
CREATE INDEX items_of_verdict ON items (batch_id, verdict, id);
CREATE INDEX items_not_clear ON items (verdict, id) WHERE verdict <> 'clear';
CREATE INDEX queue_order ON queue (priority DESC, item_id);
CREATE INDEX scores_by_margin ON scores (encoder_id, class_id, margin) INCLUDE (image_id, frame);
CREATE INDEX ledger_of_item ON ledger (item_id, id);
CREATE INDEX ledger_of_batch ON ledger (batch_id, id);
"""

# One trigger per statement: a change that would touch no row is refused too.
LEDGER = """
CREATE FUNCTION refuse_to_change_the_ledger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'The ledger is append-only: % is refused.', TG_OP
        USING ERRCODE = 'insufficient_privilege', HINT = 'Add an entry that corrects the other.';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_the_ledger();
"""

# Runs with its owner's rights: the service's role makes no tables.
REGISTER = """
CREATE FUNCTION register_encoder(fingerprint bytea, name varchar, dim integer, details jsonb)
RETURNS integer LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE encoder integer;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('filter_service encoders'));
    SELECT id INTO encoder FROM encoders e WHERE e.fingerprint = $1;
    IF FOUND THEN
        RETURN encoder;
    END IF;
    INSERT INTO encoders (fingerprint, name, dim, details) VALUES ($1, $2, $3, $4)
        RETURNING id INTO encoder;
    EXECUTE format('CREATE TABLE embeddings_%1$s PARTITION OF embeddings FOR VALUES IN (%1$s)',
                   encoder);
    EXECUTE format('CREATE TABLE scores_%1$s PARTITION OF scores FOR VALUES IN (%1$s)', encoder);
    RETURN encoder;
END $$;
"""

# An index costs 2.5 ms for each new vector of 512 dimensions, so it waits until reading all of them
# would be slow; up to then every search is exact. Building it holds writes up for some seconds.
INDEX = """
CREATE FUNCTION index_embeddings(encoder integer, at_least integer)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
SET statement_timeout = 0 SET maintenance_work_mem = '1GB'
SET max_parallel_maintenance_workers = 0  -- containers share too little memory between processes
AS $$
DECLARE dimensions integer; enough boolean;
BEGIN
    IF to_regclass(format('embeddings_%s_nearest', encoder)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM embeddings_%s OFFSET %s)', encoder, at_least - 1)
        INTO enough;
    IF NOT enough OR NOT pg_try_advisory_xact_lock(hashtext('filter_service index')) THEN
        RETURN false;
    END IF;
    SELECT dim INTO dimensions FROM encoders WHERE id = encoder;
    EXECUTE format('CREATE INDEX embeddings_%1$s_nearest ON embeddings_%1$s '
                   'USING hnsw ((vector::halfvec(%2$s)) halfvec_cosine_ops)', encoder, dimensions);
    RETURN true;
END $$;
"""

GRANTS = """
GRANT SELECT ON alembic_version, encoders TO filter_service_app;
GRANT SELECT, INSERT ON images, policies, policy_classes, explanations, phrases, ledger
    TO filter_service_app;
GRANT SELECT, INSERT, UPDATE ON batches, items, embeddings, scores TO filter_service_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON queue TO filter_service_app;
REVOKE EXECUTE ON FUNCTION register_encoder, index_embeddings FROM PUBLIC;
GRANT EXECUTE ON FUNCTION register_encoder, index_embeddings TO filter_service_app;
"""
