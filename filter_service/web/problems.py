"""Errors as sentences: problem details (RFC 9457) for programs, a page for people."""

from fastapi import FastAPI


def add_to(app: FastAPI) -> None:
    """Let every error of ours leave as a problem."""
