"""What is asked about one decision on demand: too dear for every flag."""
