"""Validates the reason that is given for a hold or an erasure."""

from filter_service.errors import InvalidRequest

LONGEST = 500  # letters


def checked_reason(reason: str) -> str:
    """A reason that can be kept; raises InvalidRequest."""
    reason = reason.strip()
    if not 1 <= len(reason) <= LONGEST or "\x00" in reason:
        raise InvalidRequest(f"The reason has {len(reason)} letters: say why, in 1 to {LONGEST}.")
    return reason
