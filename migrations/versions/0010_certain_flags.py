"""Flags that act by themselves: of which items, and rules that draw some of them for review."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE items ADD fully_automated boolean NOT NULL DEFAULT false;
        COMMENT ON COLUMN items.fully_automated IS
            'Its flag acted by itself, before any person looked.';
        ALTER TABLE review_rules DROP CONSTRAINT review_rules_kind_check,
            ADD CHECK (kind IN ('second_look', 'clear_sample', 'certain_sample'));
        COMMENT ON COLUMN review_rules.kind IS 'second_look, clear_sample or certain_sample.';
    """)


def downgrade() -> None:
    op.execute("""
        ALTER TABLE items DROP fully_automated;
        DELETE FROM review_rules WHERE kind = 'certain_sample';
        ALTER TABLE review_rules DROP CONSTRAINT review_rules_kind_check,
            ADD CHECK (kind IN ('second_look', 'clear_sample'));
        COMMENT ON COLUMN review_rules.kind IS 'second_look or clear_sample.';
    """)
