"""Rows: tables, sessions and the vector searches."""
