"""The decision record: an item's whole life on one page, each line with its place in the ledger."""

from filter_service.audit.record.item_history import ItemHistory, read

__all__ = ["ItemHistory", "read"]
