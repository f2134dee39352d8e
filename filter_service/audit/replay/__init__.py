"""Replay: recomputes decisions from the stored bytes and compares them with the record."""
