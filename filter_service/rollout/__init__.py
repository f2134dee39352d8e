"""Policy rollout: versions, proposals, comparison, activation and backfill."""

from filter_service.rollout.activation import Flags, activate, propose, withdraw
from filter_service.rollout.versions import (
    active_policy,
    history,
    meant_version,
    names,
    version_of,
    waiting_of,
)

__all__ = [
    "Flags",
    "activate",
    "active_policy",
    "history",
    "meant_version",
    "names",
    "propose",
    "version_of",
    "waiting_of",
    "withdraw",
]
