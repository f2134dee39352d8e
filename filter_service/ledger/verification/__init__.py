"""Verifying: everything that was sealed is what is there now, looked at and never touched."""

from filter_service.ledger.verification.export_check import verify_export
from filter_service.ledger.verification.verification import verify
from filter_service.ledger.verification.verification_report import VerificationReport

__all__ = ["VerificationReport", "verify", "verify_export"]
