"""Verifying: everything that was sealed is what is there now, looked at and never touched."""

from filter_service.ledger.verifying.export import verify_export
from filter_service.ledger.verifying.report import Report
from filter_service.ledger.verifying.whole import verify

__all__ = ["Report", "verify", "verify_export"]
