"""Postgres with pgvector: the tables, the sessions, the schema's version and the vectors."""
