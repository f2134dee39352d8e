"""Statements of reasons: what the user who is affected is told, and the Union's database."""
