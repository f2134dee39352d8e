"""Whose a case is, so that the console's lists can be narrowed to a client.

Items of before are of the client that is called default, and so are what a worker of the last
version opens meanwhile.
"""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for statement in (COLUMN, INDEXES):
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE review_cases DROP client_id; DROP INDEX items_failed_of_client")


COLUMN = """
ALTER TABLE review_cases ADD client_id integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN review_cases.client_id IS 'Its item''s.';
UPDATE review_cases SET client_id = items.client_id FROM items
WHERE items.id = item_id AND items.client_id <> 1;
"""

INDEXES = """
CREATE INDEX cases_of_client ON review_cases (client_id, severity DESC, margin DESC, item_id);
CREATE INDEX items_failed_of_client ON items (client_id, id) WHERE verdict = 'undetermined';
"""
