"""One file per question that an explanation answers."""
