"""Intake: files, manifests and URIs become batches of queued items."""
