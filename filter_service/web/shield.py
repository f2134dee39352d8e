"""Headers of every answer: a strict Content-Security-Policy, and nothing sniffed or framed."""

from fastapi import FastAPI


def add_to(app: FastAPI) -> None:
    """Put the headers on every answer."""
