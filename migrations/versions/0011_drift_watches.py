"""Watches: where the test for drift of each class is, and the alarm that it gave."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    for statement in (WATCHES, GRANTS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE drift_watches")


WATCHES = """
CREATE TABLE drift_watches (
    encoder_id integer NOT NULL REFERENCES encoders,
    class_id integer NOT NULL REFERENCES policy_classes,
    reference double precision[] NOT NULL,
    flagged integer NOT NULL,
    flagged_of integer NOT NULL,
    month bigint NOT NULL,
    reached bigint NOT NULL,
    seen integer NOT NULL DEFAULT 0,
    margin_evidence double precision[] NOT NULL,
    share_evidence double precision[] NOT NULL,
    calm bigint NOT NULL,
    since_seen integer NOT NULL DEFAULT 0,
    since_total double precision NOT NULL DEFAULT 0,
    since_flagged integer NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    looked_at timestamptz NOT NULL DEFAULT now(),
    alarmed_at timestamptz,
    alarm jsonb,
    PRIMARY KEY (encoder_id, class_id)
);
COMMENT ON COLUMN drift_watches.class_id IS 'Of one version.';
COMMENT ON COLUMN drift_watches.reference IS
    'Margins that it compares with; empty: to be drawn anew.';
COMMENT ON COLUMN drift_watches.flagged IS 'Of the images before it began.';
COMMENT ON COLUMN drift_watches.month IS
    'Images in one: for so many the chance of a false alarm is stated.';
COMMENT ON COLUMN drift_watches.reached IS 'The last image that was looked at.';
COMMENT ON COLUMN drift_watches.seen IS 'Images looked at.';
COMMENT ON COLUMN drift_watches.calm IS 'The last image when nothing spoke for a change.';
COMMENT ON COLUMN drift_watches.since_seen IS 'Images after it.';
COMMENT ON COLUMN drift_watches.since_total IS 'Of their margins.';
COMMENT ON COLUMN drift_watches.alarm IS 'What moved, since when, by how much.';
"""

GRANTS = "GRANT SELECT, INSERT, UPDATE, DELETE ON drift_watches TO filter_service_app"
