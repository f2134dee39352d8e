"""What all web routes share: access, paging, errors, headers, uploads and metrics."""
