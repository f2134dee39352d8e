"""The HTTP interface for platforms, one file for each of its resources."""
