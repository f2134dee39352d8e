"""People, reviews, lists, appeals, tallies, fetches and webhooks."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for statement in (TABLES, COLUMNS, INDEXES, WAITING, FINAL, GRANTS):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Reviews cannot be taken back: restore a backup instead.")


TABLES = """
CREATE TABLE people (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    login varchar NOT NULL UNIQUE CHECK (login = lower(login) AND login <> ''),
    name varchar NOT NULL,
    role varchar NOT NULL
        CHECK (role IN ('admin', 'policy_editor', 'moderator', 'senior', 'auditor')),
    password_hash varchar,
    subject varchar UNIQUE,
    classes varchar[],
    reveal_cap integer CHECK (reveal_cap >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);
COMMENT ON COLUMN people.login IS 'Lower case.';
COMMENT ON COLUMN people.subject IS 'Who this is at the identity provider.';
COMMENT ON COLUMN people.classes IS 'Names of the classes this person may see; null: all.';
COMMENT ON COLUMN people.reveal_cap IS 'Unblurred images a day; null: any.';

CREATE TABLE logins (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 32),
    person_id integer NOT NULL REFERENCES people,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);

CREATE TABLE login_failures (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key varchar NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name varchar NOT NULL,
    prefix varchar NOT NULL,
    digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    created_by varchar NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);
COMMENT ON COLUMN api_keys.prefix IS 'Its first letters, by which people know it.';

CREATE TABLE reveals (
    person_id integer NOT NULL REFERENCES people,
    day date NOT NULL,
    class_name varchar NOT NULL,
    count integer NOT NULL,
    PRIMARY KEY (person_id, day, class_name)
);

CREATE TABLE list_entries (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind varchar NOT NULL CHECK (kind IN ('allow', 'block')),
    class_name varchar NOT NULL,
    match varchar NOT NULL CHECK (match IN ('digest', 'pdq', 'radius')),
    image_digest bytea CHECK (octet_length(image_digest) = 32),
    pdq bit(256),
    encoder_id integer REFERENCES encoders,
    vector vector,
    within double precision,
    reason varchar NOT NULL,
    created_by varchar NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz
);
COMMENT ON COLUMN list_entries.kind IS 'allow or block.';
COMMENT ON COLUMN list_entries.class_name IS 'That it is listed for.';
COMMENT ON COLUMN list_entries.match IS 'digest, pdq or radius.';
COMMENT ON COLUMN list_entries.within IS 'Bits of the PDQ, or degrees.';

CREATE TABLE reviews (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item_id bigint NOT NULL REFERENCES items,
    stage varchar NOT NULL CHECK (stage IN ('first', 'second', 'senior', 'appeal')),
    person_id integer NOT NULL REFERENCES people,
    decision varchar NOT NULL
        CHECK (decision IN ('confirmed', 'overturned', 'escalated', 'skipped')),
    reason varchar,
    note varchar,
    group_id uuid,
    seconds double precision,
    revealed boolean NOT NULL,
    decided_at timestamptz NOT NULL DEFAULT now(),
    effective_at timestamptz NOT NULL,
    undone_at timestamptz,
    settled_at timestamptz
);
COMMENT ON COLUMN reviews.decision IS 'confirmed, overturned, escalated or skipped.';
COMMENT ON COLUMN reviews.group_id IS 'Decided together with others.';
COMMENT ON COLUMN reviews.seconds IS 'From the claim to the decision.';
COMMENT ON COLUMN reviews.revealed IS 'This person saw the image unblurred.';
COMMENT ON COLUMN reviews.effective_at IS 'It can be undone until then.';

CREATE TABLE review_cases (
    item_id bigint PRIMARY KEY REFERENCES items,
    stage varchar NOT NULL CHECK (stage IN ('first', 'second', 'senior', 'appeal')),
    sampled boolean NOT NULL,
    severity smallint NOT NULL CHECK (severity BETWEEN 0 AND 3),
    margin double precision NOT NULL,
    class_name varchar NOT NULL,
    policy_id integer NOT NULL REFERENCES policies,
    batch_id uuid NOT NULL REFERENCES batches,
    image_id bigint NOT NULL REFERENCES images,
    opened_at timestamptz NOT NULL DEFAULT now(),
    holder integer REFERENCES people,
    claimed_at timestamptz,
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    review_id bigint
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON COLUMN review_cases.stage IS 'first, second, senior or appeal.';
COMMENT ON COLUMN review_cases.sampled IS 'A clear item, drawn to see what is missed.';
COMMENT ON COLUMN review_cases.severity IS '0 low to 3 critical.';
COMMENT ON COLUMN review_cases.margin IS 'Logits above the threshold.';
COMMENT ON COLUMN review_cases.leased_until IS 'Free from then on.';
COMMENT ON COLUMN review_cases.review_id IS
    'The decision that takes effect when it can no longer be undone.';

CREATE TABLE review_outcomes (
    item_id bigint PRIMARY KEY REFERENCES items,
    image_id bigint NOT NULL REFERENCES images,
    class_name varchar NOT NULL,
    decision varchar NOT NULL CHECK (decision IN ('confirmed', 'overturned')),
    sampled boolean NOT NULL,
    review_id bigint REFERENCES reviews,
    at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN review_outcomes.decision IS 'confirmed or overturned.';
COMMENT ON COLUMN review_outcomes.review_id IS 'Null: a list decided.';

CREATE TABLE appeals (
    id uuid PRIMARY KEY,
    item_id bigint NOT NULL REFERENCES items,
    statement varchar NOT NULL,
    opened_by varchar NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    upheld boolean,
    review_id bigint REFERENCES reviews
);
COMMENT ON COLUMN appeals.upheld IS 'The flag stands.';

CREATE TABLE review_rules (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind varchar NOT NULL CHECK (kind IN ('second_look', 'clear_sample')),
    class_name varchar,
    margin_below double precision,
    share double precision NOT NULL CHECK (share > 0 AND share <= 1),
    created_by varchar NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz
);
COMMENT ON COLUMN review_rules.kind IS 'second_look or clear_sample.';
COMMENT ON COLUMN review_rules.class_name IS 'Null: every class.';
COMMENT ON COLUMN review_rules.margin_below IS
    'Only so many logits above the threshold; null: any.';
COMMENT ON COLUMN review_rules.share IS 'Of those, drawn at random.';

CREATE TABLE tallies (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind varchar NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    class_name varchar NOT NULL DEFAULT '',
    amount double precision NOT NULL
);
COMMENT ON COLUMN tallies.kind IS
    'judged, flagged, undetermined, confirmed, overturned, sampled:DECISION, '
    'seconds, timed, waiting:STAGE.';
COMMENT ON COLUMN tallies.class_name IS 'Empty: of no class.';

CREATE TABLE idempotency_keys (
    owner varchar NOT NULL,
    key varchar NOT NULL,
    request bytea NOT NULL CHECK (octet_length(request) = 32),
    batch_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, key)
);
COMMENT ON COLUMN idempotency_keys.request IS 'Of what was asked.';
COMMENT ON COLUMN idempotency_keys.batch_id IS 'Without a total while it is accepted.';

CREATE TABLE fetches (
    item_id bigint PRIMARY KEY REFERENCES items,
    uri varchar NOT NULL,
    attempts smallint NOT NULL DEFAULT 0,
    due_at timestamptz DEFAULT now(),
    problem varchar
);
COMMENT ON COLUMN fetches.due_at IS 'Free from then on; null: given up.';
COMMENT ON COLUMN fetches.problem IS 'Why the last attempt was put off.';

CREATE TABLE webhook_endpoints (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    url varchar NOT NULL,
    secret varchar NOT NULL,
    events varchar[],
    created_by varchar NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    failing_since timestamptz,
    disabled_at timestamptz,
    removed_at timestamptz
);
COMMENT ON COLUMN webhook_endpoints.failing_since IS 'No delivery has succeeded since then.';
COMMENT ON COLUMN webhook_endpoints.disabled_at IS 'It answered 410 Gone.';
COMMENT ON COLUMN webhook_endpoints.secret IS 'whsec_…; signing needs it as it is.';
COMMENT ON COLUMN webhook_endpoints.events IS 'Null: all.';

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id uuid NOT NULL UNIQUE,
    type varchar NOT NULL,
    subject varchar NOT NULL,
    item_id bigint,
    batch_id uuid,
    payload jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN outbox.message_id IS 'webhook-id.';
COMMENT ON COLUMN outbox.subject IS 'Events of one subject are sent in order.';

CREATE TABLE deliveries (
    endpoint_id integer NOT NULL REFERENCES webhook_endpoints,
    event_id bigint NOT NULL REFERENCES outbox,
    subject varchar NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL DEFAULT now(),
    delivered_at timestamptz,
    given_up_at timestamptz,
    PRIMARY KEY (endpoint_id, event_id)
);
COMMENT ON COLUMN deliveries.due_at IS 'Free from then on.';

CREATE TABLE delivery_attempts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint_id integer NOT NULL REFERENCES webhook_endpoints,
    event_id bigint NOT NULL REFERENCES outbox,
    at timestamptz NOT NULL DEFAULT now(),
    status integer,
    problem varchar,
    seconds double precision NOT NULL
);
COMMENT ON COLUMN delivery_attempts.status IS 'HTTP status; null: no answer.';
"""

INDEXES = """
CREATE INDEX items_of_image ON items (image_id);
CREATE INDEX login_failures_of_key ON login_failures (key, at);
CREATE UNIQUE INDEX one_key_of_name ON api_keys (name) WHERE revoked_at IS NULL;
CREATE UNIQUE INDEX one_decision_each ON reviews (item_id, person_id)
    WHERE undone_at IS NULL AND decision IN ('confirmed', 'overturned');
CREATE INDEX reviews_of_item ON reviews (item_id, id);
CREATE INDEX reviews_to_settle ON reviews (effective_at)
    WHERE settled_at IS NULL AND undone_at IS NULL;
CREATE INDEX cases_by_age ON review_cases (opened_at, item_id);
CREATE INDEX cases_in_order ON review_cases (severity DESC, margin DESC, item_id);
CREATE INDEX cases_of_batch ON review_cases (batch_id, severity DESC, margin DESC, item_id);
CREATE INDEX cases_held ON review_cases (holder) WHERE holder IS NOT NULL;
CREATE INDEX cases_of_class ON review_cases (class_name, severity DESC, margin DESC, item_id);
CREATE INDEX cases_of_image ON review_cases (image_id);
CREATE INDEX cases_of_policy ON review_cases (policy_id, severity DESC, margin DESC, item_id);
CREATE INDEX cases_of_stage ON review_cases (stage, severity DESC, margin DESC, item_id);
CREATE INDEX outcomes_of_image ON review_outcomes (image_id);
CREATE INDEX outcomes_of_class ON review_outcomes (class_name, at);
CREATE INDEX entries_removed ON list_entries (removed_at) WHERE removed_at IS NOT NULL;
CREATE INDEX appeals_of_item ON appeals (item_id);
CREATE UNIQUE INDEX one_open_appeal ON appeals (item_id) WHERE closed_at IS NULL;
CREATE INDEX tallies_in_order ON tallies (kind, at);
CREATE INDEX fetches_due ON fetches (due_at);
CREATE INDEX outbox_of_item ON outbox (item_id, id);
CREATE INDEX batches_to_announce ON batches (submitted_at, id) WHERE announced_at IS NULL;
CREATE INDEX deliveries_due ON deliveries (endpoint_id, due_at)
    WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX deliveries_in_vain ON deliveries (endpoint_id, event_id)
    WHERE delivered_at IS NULL;
CREATE INDEX deliveries_of_subject ON deliveries (endpoint_id, subject, event_id)
    WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX attempts_of_event ON delivery_attempts (event_id, endpoint_id, id);
"""

COLUMNS = """
ALTER TABLE images ADD pdq bit(256);
COMMENT ON COLUMN images.pdq IS
    'Perceptual hash of the first frame; null: not judged, or too plain.';
ALTER TABLE batches ADD announced_at timestamptz;
COMMENT ON COLUMN batches.announced_at IS 'Its end was told to webhooks.';
CREATE INDEX batches_in_order ON batches (submitted_at, id);
ALTER TABLE items ADD list_entry_id integer REFERENCES list_entries;
COMMENT ON COLUMN items.list_entry_id IS 'The list that decided, against the model or not.';
"""

# How many wait is kept as differences, so that nobody counts the table and no two people who
# decide wait for one row; a heartbeat changes neither column and writes nothing.
WAITING = """
CREATE FUNCTION tally_waiting() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO tallies (kind, class_name, amount)
        SELECT 'waiting:' || stage, class_name, count(*) FROM came
        WHERE review_id IS NULL GROUP BY stage, class_name;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO tallies (kind, class_name, amount)
        SELECT 'waiting:' || stage, class_name, -count(*) FROM went
        WHERE review_id IS NULL GROUP BY stage, class_name;
    ELSE
        INSERT INTO tallies (kind, class_name, amount)
        SELECT 'waiting:' || stage, class_name, sum(n)
        FROM (
            SELECT stage, class_name, 1 AS n FROM came WHERE review_id IS NULL
            UNION ALL
            SELECT stage, class_name, -1 FROM went WHERE review_id IS NULL
        ) AS changes
        GROUP BY stage, class_name HAVING sum(n) <> 0;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER tally_new AFTER INSERT ON review_cases REFERENCING NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION tally_waiting();
CREATE TRIGGER tally_changed AFTER UPDATE ON review_cases
    REFERENCING OLD TABLE AS went NEW TABLE AS came
    FOR EACH STATEMENT EXECUTE FUNCTION tally_waiting();
CREATE TRIGGER tally_gone AFTER DELETE ON review_cases REFERENCING OLD TABLE AS went
    FOR EACH STATEMENT EXECUTE FUNCTION tally_waiting();
"""

# What somebody decided stays as it was said; it can be undone until it takes effect, once.
FINAL = """
CREATE FUNCTION keep_reviews_final() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.settled_at IS NOT NULL OR OLD.undone_at IS NOT NULL THEN
        RAISE EXCEPTION 'Review % has taken effect or was undone; it stays as it is.', OLD.id
            USING ERRCODE = 'insufficient_privilege', HINT = 'Decide again instead.';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER final BEFORE UPDATE ON reviews
    FOR EACH ROW EXECUTE FUNCTION keep_reviews_final();
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE ON people, reveals, review_outcomes, webhook_endpoints, deliveries,
    idempotency_keys TO filter_service_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON review_cases, fetches TO filter_service_app;
GRANT SELECT, INSERT, DELETE ON logins, login_failures, tallies, idempotency_keys
    TO filter_service_app;
GRANT SELECT, INSERT ON reviews, appeals, review_rules, list_entries, api_keys, outbox,
    delivery_attempts TO filter_service_app;
GRANT UPDATE (undone_at, settled_at) ON reviews TO filter_service_app;
GRANT UPDATE (closed_at, upheld, review_id) ON appeals TO filter_service_app;
GRANT UPDATE (removed_at) ON review_rules, list_entries TO filter_service_app;
GRANT UPDATE (revoked_at) ON api_keys TO filter_service_app;
GRANT UPDATE (expires_at) ON logins TO filter_service_app;
GRANT UPDATE (pdq) ON images TO filter_service_app;
"""
