"""Compares an item's record with what was recomputed of it; nothing is looked up or computed."""

from filter_service.audit.replay.explanation_comparison import compare_explanation, compare_told
from filter_service.audit.replay.item_on_record import OnRecord
from filter_service.audit.replay.recomputation import RecomputedRecord
from filter_service.audit.replay.record_comparison import RecordComparison
from filter_service.audit.replay.score_comparison import compare_row, compare_scores


def compare(record: OnRecord, computed: RecomputedRecord) -> RecordComparison:
    """Where the two differ by more than the tolerances, and by how much they differ at all."""
    found = RecordComparison()
    compare_row(found, record)
    if computed.outcome is None:
        found.same("image", record.digest, computed.problem)
        return found
    if not computed.same_views:
        found.notes.append(
            "the image is looked at in other views here than those on record: they are chosen "
            "otherwise by now, or its frames are."
        )
    found.same("verdict", record.row["verdict"], computed.outcome.verdict)
    compare_scores(found, record, computed.outcome.scores, computed.bands)
    if computed.precision != record.precision:
        found.notes.append(
            f"screened in {record.precision}, here in {computed.precision}: what comes from that "
            "pass is compared within the band; set FILTER_SERVICE_PRECISION."
        )
    told, now = record.told, {e.class_name for e in computed.outcome.explanations}
    for name in sorted({*record.explanations, *told.explained, *now}):
        stored = record.explanations.get(name)
        if stored is not None:
            compare_told(found, name, stored, told.explained.get(name), record.fingerprint)
            compare_explanation(found, name, stored, record.policy.policy, computed)
        elif name in told.deleted:
            found.notes.append(f"{name}: the explanation was deleted, as the ledger says.")
        else:
            found.same(f"{name}: explanation", None, "explained")
    return found
