"""Connections to other people's servers: allowed addresses, and the client that keeps to them."""
