"""Which labels a calibration or a head was fitted on, so that each one's influence can be told."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    for statement in (LABELS, GRANTS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE training_labels")


LABELS = """
CREATE TABLE training_labels (
    fit bytea NOT NULL,
    image_id bigint NOT NULL REFERENCES images,
    item_id bigint REFERENCES items,
    truth boolean NOT NULL,
    margin double precision NOT NULL,
    frame integer NOT NULL,
    view varchar NOT NULL,
    PRIMARY KEY (fit, image_id)
);
CREATE INDEX training_of_image ON training_labels (image_id);
CREATE INDEX training_of_item ON training_labels (item_id) WHERE item_id IS NOT NULL;
COMMENT ON COLUMN training_labels.fit IS 'Digest of the calibration or head, by its policy.';
COMMENT ON COLUMN training_labels.item_id IS 'That was decided; null: uploaded.';
COMMENT ON COLUMN training_labels.truth IS 'The image shows the class.';
COMMENT ON COLUMN training_labels.margin IS 'Of a head''s label, that of the prompts alone.';
COMMENT ON COLUMN training_labels.frame IS 'Of the view that a head learnt from.';
"""

GRANTS = "GRANT SELECT, INSERT, UPDATE, DELETE ON training_labels TO filter_service_app"
