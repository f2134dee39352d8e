"""Verifies that the ledger is as it was sealed; nothing is written."""

from filter_service.ledger.verification.export_check import verify_export
from filter_service.ledger.verification.verification import verify
from filter_service.ledger.verification.verification_report import VerificationReport

__all__ = ["VerificationReport", "verify", "verify_export"]
