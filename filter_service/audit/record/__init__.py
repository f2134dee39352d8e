"""The decision record: an item's whole history on one page, each line with its ledger entry."""

from filter_service.audit.record.item_history import read

__all__ = ["read"]
