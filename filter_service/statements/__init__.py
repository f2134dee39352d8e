"""Statements of reasons: notices for users, and files for the DSA Transparency Database."""
