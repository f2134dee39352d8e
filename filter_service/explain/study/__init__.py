"""Analyses of one decision on demand, which cost too much to be made for every flag."""
