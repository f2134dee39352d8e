"""What the running check of the fast pass has seen, by encoder."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for statement in (CHECKS, GRANTS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE screening_checks")


CHECKS = """
CREATE TABLE screening_checks (
    encoder_id integer PRIMARY KEY REFERENCES encoders (id),
    pairs bigint NOT NULL DEFAULT 0,
    outside bigint NOT NULL DEFAULT 0,
    total double precision NOT NULL DEFAULT 0,
    furthest double precision NOT NULL DEFAULT 0,
    alarms bigint NOT NULL DEFAULT 0,
    widening double precision NOT NULL DEFAULT 1,
    alarmed_at timestamptz
);
COMMENT ON COLUMN screening_checks.pairs IS
    'Images of which both passes were compared.';
COMMENT ON COLUMN screening_checks.outside IS
    'Of these, with a margin outside the band as it was then.';
COMMENT ON COLUMN screening_checks.total IS 'Of their largest deviations, in measured bands.';
COMMENT ON COLUMN screening_checks.furthest IS 'The largest of all, in measured bands.';
COMMENT ON COLUMN screening_checks.widening IS
    'Times the measured band, since the last alarm.';
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE ON screening_checks TO filter_service_app;
"""
