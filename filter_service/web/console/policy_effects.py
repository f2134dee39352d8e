"""Previews a policy change on stored images, as far as the person may see them."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from filter_service.accounts.callers import Caller
from filter_service.errors import Conflict, FilterServiceError
from filter_service.policy import Policy
from filter_service.reviews.row_access import may_see
from filter_service.reviews.sightings import newest_by_image
from filter_service.rollout.policy_comparison import ChangedImage, PolicyComparison
from filter_service.rollout.stored_vectors import ComparisonScope, compare
from filter_service.web.http.service import Service

_one_at_a_time = threading.Lock()  # a comparison takes all cores for some seconds


@dataclass(frozen=True, slots=True)
class Example:
    """An image about which two versions differ, with the newest item that shows it."""

    changed: ChangedImage
    digest: str
    item_id: int


@dataclass(frozen=True, slots=True)
class VisibleChanges:
    """What would change, with what this person may see of it."""

    comparison: PolicyComparison
    lost: tuple[Example, ...]
    gained: tuple[Example, ...]


def changes(
    here: Service, caller: Caller, old: Policy, new: Policy
) -> tuple[VisibleChanges | None, FilterServiceError | None]:
    """What would change, or the sentence that says why nobody knows just now."""
    try:
        with _alone():
            encoder_id, before = here.seeker.policy(old)
            _, after = here.seeker.policy(new)
            names = {c.name for version in (old, new) for c in version.classes}
            hidden = frozenset(n for n in names if not may_see(caller, n))
            found = compare(
                here.sessions, ComparisonScope(encoder_id, before, after, hidden=hidden)
            )
    except FilterServiceError as error:
        return None, error
    lost, gained = _examples(here, caller, found.lost), _examples(here, caller, found.gained)
    return VisibleChanges(found, lost, gained), None


@contextmanager
def _alone() -> Iterator[None]:
    if not _one_at_a_time.acquire(blocking=False):  # waiting would take a thread from the others
        raise Conflict("Others compare versions just now: ask again in a few seconds.")
    try:
        yield
    finally:
        _one_at_a_time.release()


def _examples(
    here: Service, caller: Caller, changed: Sequence[ChangedImage]
) -> tuple[Example, ...]:
    """Those whose picture this person may see, each with its newest item."""
    with here.sessions.begin() as session:
        found = newest_by_image(session, caller, [c.image_id for c in changed])
    return tuple(Example(c, *found[c.image_id]) for c in changed if c.image_id in found)
