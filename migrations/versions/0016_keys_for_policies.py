"""Keys of the operator's own that may propose and activate policies; none of before may."""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.execute("ALTER TABLE api_keys ADD policies boolean NOT NULL DEFAULT false")
    op.execute("COMMENT ON COLUMN api_keys.policies IS 'It may propose and activate policies.'")


def downgrade() -> None:
    op.execute("ALTER TABLE api_keys DROP policies")
