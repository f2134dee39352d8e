"""Clients: whose batches, webhooks and policy names something is.

A worker of the last version still runs while this does: what it writes, and everything of before,
is the client's that is called default, to which all keys of before belong. The policies of before
are the operator's: their names mean to everybody what they meant.
"""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    for statement in (TABLES, COLUMNS, OWNERS, INDEXES, GRANTS):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Clients would see each other's again: restore a backup instead.")


TABLES = """
CREATE TABLE clients (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name varchar NOT NULL UNIQUE,
    created_by varchar NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO clients (name, created_by) VALUES ('default', 'service');

CREATE TABLE policy_names (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client_id integer REFERENCES clients,
    name varchar NOT NULL,
    policy_id integer NOT NULL REFERENCES policies,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN policy_names.client_id IS 'Null: the operator''s, which all clients may name.';
INSERT INTO policy_names (name, policy_id, created_at)
SELECT name, id, created_at FROM policies ORDER BY id;
"""

COLUMNS = """
ALTER TABLE api_keys ADD client_id integer NOT NULL DEFAULT 1 REFERENCES clients,
    ADD all_clients boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN api_keys.all_clients IS 'The operator''s own: it sees what every client has.';
ALTER TABLE batches ADD client_id integer NOT NULL DEFAULT 1 REFERENCES clients,
    ADD activation_id integer;
COMMENT ON COLUMN batches.activation_id IS 
    'For which its items are judged anew; those refer to batches themselves.';
ALTER TABLE items ADD client_id integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN items.client_id IS 'Its batch''s.';
ALTER TABLE webhook_endpoints ADD client_id integer REFERENCES clients;
COMMENT ON COLUMN webhook_endpoints.client_id IS
    'Null: the operator''s, which is told of every client.';
UPDATE batches SET activation_id = a.id FROM policy_activations a WHERE a.batch_id = batches.id;
"""

# Two keys of one client are one owner now; of the same word, the request of the first one counts.
OWNERS = """
UPDATE webhook_endpoints SET client_id = 1 WHERE created_by LIKE 'key %';
DELETE FROM idempotency_keys later USING idempotency_keys first
WHERE later.key = first.key AND later.owner LIKE 'key %' AND first.owner LIKE 'key %'
    AND (later.created_at, later.owner) > (first.created_at, first.owner);
UPDATE idempotency_keys SET owner = 'client 1' WHERE owner LIKE 'key %';
"""

INDEXES = """
CREATE INDEX batches_of_client ON batches (client_id, submitted_at, id);
CREATE UNIQUE INDEX one_batch_of_activation ON batches (activation_id, client_id)
    WHERE activation_id IS NOT NULL;
CREATE INDEX items_of_client ON items (client_id, image_id);
CREATE INDEX endpoints_of_client ON webhook_endpoints (client_id, id);
CREATE UNIQUE INDEX one_policy_of_client ON policy_names (client_id, policy_id)
    WHERE client_id IS NOT NULL;
CREATE UNIQUE INDEX one_policy_of_operator ON policy_names (policy_id) WHERE client_id IS NULL;
CREATE INDEX policies_of_name ON policy_names (name, client_id, id);
"""

GRANTS = "GRANT SELECT, INSERT ON clients, policy_names TO filter_service_app"
