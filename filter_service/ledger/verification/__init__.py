"""Verifying: everything that was sealed is what is there now, looked at and never touched."""

from filter_service.ledger.verification.exported import verify_export
from filter_service.ledger.verification.report import Report
from filter_service.ledger.verification.verification import verify

__all__ = ["Report", "verify", "verify_export"]
