"""What the daemon serves over HTTP: the API for machines, and what watches it."""
