"""The console for moderators and the HTTP interface for platforms."""
