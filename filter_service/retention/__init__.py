"""Retention: retention rules, legal holds, expiry and erasure."""

from filter_service.retention.erasure import erase, request
from filter_service.retention.expiry import expire
from filter_service.retention.holds import hold, holds, release
from filter_service.retention.orphaned_bytes import sweep
from filter_service.retention.preview import would_erase, would_expire
from filter_service.retention.receipts import Receipt, as_text, erasures, receipt
from filter_service.retention.retention_rules import (
    COMPLAINTS,
    ItemOutcome,
    RetainedPart,
    RetentionTerms,
    add_rule,
    remove_rule,
    rules,
)
from filter_service.retention.why_missing import last_erasure, require_here, why_gone

__all__ = [
    "COMPLAINTS",
    "ItemOutcome",
    "Receipt",
    "RetainedPart",
    "RetentionTerms",
    "add_rule",
    "as_text",
    "erase",
    "erasures",
    "expire",
    "hold",
    "holds",
    "last_erasure",
    "receipt",
    "release",
    "remove_rule",
    "request",
    "require_here",
    "rules",
    "sweep",
    "why_gone",
    "would_erase",
    "would_expire",
]
