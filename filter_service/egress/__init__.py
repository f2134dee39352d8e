"""Outgoing connections: parses URIs, and connects to allowed addresses only."""
