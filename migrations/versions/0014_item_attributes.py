"""What platforms say of items beside their images, for figures by slices."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE item_attributes (
            item_id bigint NOT NULL REFERENCES items,
            name varchar NOT NULL,
            value varchar NOT NULL,
            PRIMARY KEY (item_id, name)
        );
        CREATE INDEX attributes_by_name ON item_attributes (name, item_id);
        GRANT SELECT, INSERT, DELETE ON item_attributes TO filter_service_app;
    """)


def downgrade() -> None:
    op.execute("DROP TABLE item_attributes")
