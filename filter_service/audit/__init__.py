"""Audit: decision records of items, replay, exports and transparency figures."""
