"""Evaluation of relevance maps: trials with ground truth, metrics, statistics, report."""
