"""What a worker does: claim queued items under a lease, judge them, record what came out."""

from filter_service.moderation.classification import Desk, Judge
from filter_service.moderation.drain import drain
from filter_service.moderation.leases import Claimed, Leases, has_work

__all__ = ["Claimed", "Desk", "Judge", "Leases", "drain", "has_work"]
