"""Labels: what is true of an image and a class, and the chance with which it came to be known.

What people decided before becomes labels whose chance is unknown. Rules that draw clear items near
the threshold only are new: of those of before the distance was never looked at, and is taken out,
so that they draw what they have drawn.
"""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    for statement in (COLUMNS, RULES, LABELS, FILL, GRANTS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("""
        DROP TABLE labels;
        ALTER TABLE review_cases DROP chance, DROP class_chances, DROP evenly;
        ALTER TABLE review_outcomes DROP chance, DROP evenly;
    """)


COLUMNS = """
ALTER TABLE review_cases ADD chance double precision, ADD class_chances jsonb,
    ADD evenly boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN review_cases.chance IS
    'With which it came to be reviewed, when it was drawn; null: not by a draw.';
COMMENT ON COLUMN review_cases.class_chances IS 'The same by class that it was drawn for.';
COMMENT ON COLUMN review_cases.evenly IS 'Drawn, or one of all, whatever its margin.';
ALTER TABLE review_outcomes ADD chance double precision, ADD evenly boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN review_outcomes.chance IS 'Its case''s.';
COMMENT ON COLUMN review_outcomes.evenly IS 'Its case''s.';
"""

RULES = """
UPDATE review_rules SET margin_below = NULL WHERE kind = 'clear_sample';
COMMENT ON COLUMN review_rules.margin_below IS
    'Only so many logits from the threshold; null: any.';
"""

LABELS = """
CREATE TABLE labels (
    image_id bigint NOT NULL REFERENCES images,
    class_name varchar NOT NULL,
    truth boolean NOT NULL,
    source varchar NOT NULL CHECK (source IN ('flag', 'sample', 'appeal', 'upload')),
    chance double precision CHECK (chance > 0 AND chance <= 1),
    item_id bigint REFERENCES items,
    review_id bigint,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (image_id, class_name)
);
CREATE INDEX labels_of_class ON labels (class_name, at DESC, image_id DESC);
CREATE INDEX labels_of_item ON labels (item_id) WHERE item_id IS NOT NULL;
COMMENT ON COLUMN labels.truth IS 'The image shows it.';
COMMENT ON COLUMN labels.source IS 'flag, sample, appeal or upload.';
COMMENT ON COLUMN labels.chance IS
    'With which it came to be known; null: unknown, or not by the margin.';
COMMENT ON COLUMN labels.item_id IS 'That was decided; null: uploaded.';
COMMENT ON COLUMN labels.review_id IS 'The decision that stands.';
"""

# A flag that was confirmed shows its class; a clear item that was confirmed does not.
FILL = """
INSERT INTO labels (image_id, class_name, truth, source, item_id, review_id, at)
SELECT DISTINCT ON (o.image_id, o.class_name) o.image_id, o.class_name,
    (o.decision = 'confirmed') <> o.sampled,
    CASE WHEN o.sampled THEN 'sample' ELSE 'flag' END, o.item_id, o.review_id, o.at
FROM review_outcomes o JOIN images i ON i.id = o.image_id
WHERE o.review_id IS NOT NULL AND i.digest IS NOT NULL
  AND NOT EXISTS (SELECT FROM sealed_items s WHERE s.image_id = o.image_id)
ORDER BY o.image_id, o.class_name, o.at DESC;
"""

GRANTS = "GRANT SELECT, INSERT, UPDATE, DELETE ON labels TO filter_service_app"
