"""What reviews teach: labels, calibration, thresholds, heads, estimates and drift."""
