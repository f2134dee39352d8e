"""Verifying: everything that was sealed is what is there now, looked at and never touched."""

from filter_service.ledger.verification.exported import verify_export
from filter_service.ledger.verification.report import VerificationReport
from filter_service.ledger.verification.verification import verify

__all__ = ["VerificationReport", "verify", "verify_export"]
