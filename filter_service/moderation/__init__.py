"""Moderation: claims queued items under a lease, judges them, records the results."""

from filter_service.moderation.classification import Classifier, WorkerContext
from filter_service.moderation.drain import drain
from filter_service.moderation.leases import ClaimedItem, Leases, has_work

__all__ = ["ClaimedItem", "Classifier", "Leases", "WorkerContext", "drain", "has_work"]
