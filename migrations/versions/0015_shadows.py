"""Shadows: versions that run beside the one that judges, and what they would have flagged."""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    for statement in (SHADOWS, FLAGS, GRANTS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE shadow_flags, policy_shadows")


SHADOWS = """
CREATE TABLE policy_shadows (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    policy_id integer NOT NULL REFERENCES policies,
    name varchar NOT NULL,
    started_by varchar NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_by varchar,
    ended_at timestamptz,
    reached bigint NOT NULL,
    seen bigint NOT NULL DEFAULT 0,
    left_alone bigint NOT NULL DEFAULT 0,
    unsure bigint NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX one_shadow_of_name ON policy_shadows (name) WHERE ended_at IS NULL;
CREATE INDEX shadows_of_version ON policy_shadows (policy_id, id);
COMMENT ON COLUMN policy_shadows.name IS 'Of the policy.';
COMMENT ON COLUMN policy_shadows.reached IS 'The last item that was seen to.';
COMMENT ON COLUMN policy_shadows.seen IS 'Items compared.';
COMMENT ON COLUMN policy_shadows.left_alone IS 'Items of another encoder, or without vectors.';
COMMENT ON COLUMN policy_shadows.unsure IS
    'Compared so near that judging encodes them again.';
"""

FLAGS = """
CREATE TABLE shadow_flags (
    shadow_id integer NOT NULL REFERENCES policy_shadows,
    class_name varchar NOT NULL,
    item_id bigint NOT NULL REFERENCES items,
    by_shadow boolean NOT NULL,
    by_judge boolean NOT NULL,
    PRIMARY KEY (shadow_id, class_name, item_id)
);
CREATE INDEX shadow_flags_of_item ON shadow_flags (item_id);
COMMENT ON COLUMN shadow_flags.by_judge IS 'By the version that judged the item.';
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE ON policy_shadows TO filter_service_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON shadow_flags TO filter_service_app;
"""
