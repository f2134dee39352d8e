"""Policy rollout: versions, proposals, comparison, activation and backfill."""

from filter_service.rollout.activation import (
    Flags,
    StoredVersion,
    Version,
    activate,
    active_policy,
    history,
    meant_version,
    names,
    propose,
    version_of,
    waiting_of,
    withdraw,
)

__all__ = [
    "Flags",
    "StoredVersion",
    "Version",
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
