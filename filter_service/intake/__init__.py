"""What platforms submit: files, manifests and addresses become batches of items."""
