"""How maps are measured: trials with a causal truth, measures, statistics, and the page."""
