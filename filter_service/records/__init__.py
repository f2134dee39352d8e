"""The decision record: an item's whole life on one page, each line with its place in the ledger."""

from filter_service.records.life import Life, read

__all__ = ["Life", "read"]
