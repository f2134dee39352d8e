"""Reports of pictures, and the order that they give to cases.

What a trusted flagger or an authority reports comes first, what anybody else does before the rest
of its severity. Cases of before are in the order in which they were.
"""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    for statement in (REPORTS, INDEXES, GRANTS, CASES, ORDER, LABELS, ERASURE):
        op.execute(statement)


def downgrade() -> None:
    op.execute("""
        DROP TABLE reports;
        ALTER TABLE review_cases DROP urgency, DROP reported;
        COMMENT ON COLUMN review_cases.sampled IS 'A clear item, drawn to see what is missed.';
        DELETE FROM labels WHERE source = 'report';
        ALTER TABLE labels DROP CONSTRAINT labels_source_check;
        ALTER TABLE labels ADD CHECK (source IN ('flag', 'sample', 'appeal', 'upload'));
    """)
    for name, first in ORDERED.items():
        columns = f"{first}severity DESC, margin DESC, item_id"
        op.execute(f"CREATE INDEX {name} ON review_cases ({columns})")


ORDERED = {  # indexes of cases, and what they are of
    "cases_in_order": "",
    "cases_of_class": "class_name, ",
    "cases_of_batch": "batch_id, ",
    "cases_of_policy": "policy_id, ",
    "cases_of_client": "client_id, ",
    "cases_of_stage": "stage, ",
}


REPORTS = """
CREATE TABLE reports (
    id uuid PRIMARY KEY,
    item_id bigint NOT NULL REFERENCES items,
    source varchar NOT NULL CHECK (source IN ('user', 'trusted_flagger', 'authority', 'own')),
    reason varchar NOT NULL,
    class_name varchar,
    reference varchar,
    reported_by varchar NOT NULL,
    reported_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    final varchar,
    review_id bigint REFERENCES reviews
);
COMMENT ON COLUMN reports.source IS 'user, trusted_flagger, authority or own.';
COMMENT ON COLUMN reports.class_name IS 'That it is said to show; null: not said.';
COMMENT ON COLUMN reports.reference IS
    'Of whoever reported it: the same about an item is the same report.';
COMMENT ON COLUMN reports.final IS 'flagged or clear, as it stands then; null: open, or erased.';
COMMENT ON COLUMN reports.review_id IS
    'The decision that answered it; null: none, or it stood before.';
"""

INDEXES = """
CREATE INDEX reports_of_item ON reports (item_id);
CREATE INDEX reports_open ON reports (item_id) WHERE closed_at IS NULL;
CREATE INDEX reports_by_whom ON reports (reported_by, reported_at);
CREATE UNIQUE INDEX one_report_each ON reports (item_id, reference) WHERE reference IS NOT NULL;
"""

GRANTS = """
GRANT SELECT, INSERT ON reports TO filter_service_app;
GRANT UPDATE (closed_at, final, review_id) ON reports TO filter_service_app;
"""

CASES = """
ALTER TABLE review_cases
    ADD reported smallint NOT NULL DEFAULT 0,
    ADD urgency smallint NOT NULL GENERATED ALWAYS AS (
        2 * severity + CASE WHEN reported > 1 THEN 100 WHEN reported > 0 THEN 1 ELSE 0 END
    ) STORED;
COMMENT ON COLUMN review_cases.sampled IS
    'A clear item, drawn to see what is missed, or reported.';
COMMENT ON COLUMN review_cases.reported IS
    '0 not, 1 by a user or a moderator, 2 by a trusted flagger or an authority.';
COMMENT ON COLUMN review_cases.urgency IS 'Severity, and who reported it.';
"""

ORDER = "".join(
    f"""
    DROP INDEX {name};
    CREATE INDEX {name} ON review_cases ({first}urgency DESC, margin DESC, item_id);
    """
    for name, first in ORDERED.items()
)

LABELS = """
ALTER TABLE labels DROP CONSTRAINT labels_source_check;
ALTER TABLE labels ADD CONSTRAINT labels_source_check
    CHECK (source IN ('flag', 'sample', 'appeal', 'upload', 'report'));
COMMENT ON COLUMN labels.source IS 'flag, sample, appeal, upload or report.';
"""

ERASURE = """
CREATE OR REPLACE FUNCTION erase_words(item bigint, written varchar) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE gone bigint;
BEGIN
    PERFORM require_erased(item);
    CASE written
    WHEN 'reviews' THEN
        UPDATE reviews SET reason = NULL, note = NULL
            WHERE item_id = item AND (reason IS NOT NULL OR note IS NOT NULL);
    WHEN 'appeals' THEN
        UPDATE appeals SET statement = '' WHERE item_id = item AND statement <> '';
    WHEN 'reports' THEN  -- one that is open cannot be answered any more
        UPDATE reports SET reason = '', reference = NULL, closed_at = coalesce(closed_at, now())
            WHERE item_id = item AND (reason <> '' OR reference IS NOT NULL OR closed_at IS NULL);
    WHEN 'holds' THEN
        UPDATE legal_holds SET reason = '' WHERE item_id = item AND reason <> '';
    WHEN 'webhooks' THEN  -- what a platform has to know to find its own item again stays
        UPDATE outbox SET payload = jsonb_build_object('source', '', 'erased', true) || (
            SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(payload)
            WHERE key IN ('item', 'batch', 'verdict', 'class', 'decision', 'final', 'appeal',
                          'upheld', 'list_entry', 'puid', 'report', 'reported_as')
        ) WHERE item_id = item;
    END CASE;
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
"""
