"""What every answer of the web process needs: access, paging, problems, headers, metrics."""
