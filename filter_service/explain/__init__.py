"""Explanations of flags: relevance maps, words, counterfactuals, regions and their tests."""
