"""Computing again what was decided, from the stored bytes, and comparing it with the record."""
