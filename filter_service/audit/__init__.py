"""The auditor's wing: an item's record, its replay, exports, and transparency figures."""
