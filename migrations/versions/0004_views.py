"""Views of a frame, the size of an image, and how much of it was seen."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for statement in (VIEWS, SEEN, GRANTS):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Views of one frame cannot be told apart any more: restore a backup.")


VIEWS = """
ALTER TABLE embeddings ADD view varchar NOT NULL DEFAULT '';
COMMENT ON COLUMN embeddings.view IS 'Of the frame; empty: as the model takes it.';
ALTER TABLE embeddings DROP CONSTRAINT embeddings_pkey;
ALTER TABLE embeddings ADD PRIMARY KEY (encoder_id, image_id, frame, view);

ALTER TABLE scores ADD view varchar NOT NULL DEFAULT '';
COMMENT ON COLUMN scores.view IS 'Of the frame; empty: as the model takes it.';
DROP INDEX scores_by_margin;
CREATE INDEX scores_by_margin ON scores (encoder_id, class_id, margin)
    INCLUDE (image_id, frame, view);
"""

SEEN = """
ALTER TABLE images ADD width integer, ADD height integer, ADD shown_time double precision;
COMMENT ON COLUMN images.width IS 'Pixels, upright; null: not judged, or frames of several sizes.';
COMMENT ON COLUMN images.height IS 'Likewise.';
COMMENT ON COLUMN images.shown_time IS
    'Share of its time on the screen that its frames stand for; null: not judged.';
ALTER TABLE items ADD seen_pixels double precision, ADD seen_time double precision;
COMMENT ON COLUMN items.seen_pixels IS 'Share of each frame that the model saw; null: unknown.';
COMMENT ON COLUMN items.seen_time IS 'Share of its time on the screen; null: unknown.';
"""

GRANTS = """
GRANT UPDATE (width, height, shown_time) ON images TO filter_service_app;
"""
