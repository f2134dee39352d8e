"""What a verification checks: the numbers by which code, reports and documentation call it."""

from collections.abc import Collection

CHECKS = {
    1: "Every entry is what was sealed at its position; none was changed, added, deleted or moved.",
    2: "Every payload is what its entry committed to.",
    3: "A payload or an explanation is gone only where a sealed entry says that it was deleted.",
    4: "The stored tiles of the tree follow from the entries; none is missing or too many.",
    5: "Every checkpoint has the size and the root of the tree over the entries.",
    6: "Every checkpoint is signed by whoever had to, and each key took over from the one before.",
    7: "Nothing was cut off or added at the end: the last checkpoint is over the last entry.",
    8: "What was published outside the database is there, and is the same.",
    9: "The tree agrees with the checkpoints that you kept.",
    10: "Every witness that you named has co-signed.",
    11: "Every entry has one place in the tree, or waits for it.",
    12: "Every explanation is the one that its entry tells of.",
    13: "Every statement of reasons is the one that its entry tells of.",
    14: "Every policy is the one that entries call by its digest.",
    15: "Every byte of the file is as an export has it, and its digest is at the end.",
}
IN_DATABASES = CHECKS.keys() - {15}
IN_EXPORTS = CHECKS.keys() - {4, 8, 11, 12, 13, 14}


def given(checks: Collection[int], *, published: bool, kept: bool, witnesses: bool) -> set[int]:
    """Those of the checks for which there is what it takes to make them."""
    missing = {8: not published, 9: not kept, 10: not witnesses}
    return {number for number in checks if not missing.get(number)}
