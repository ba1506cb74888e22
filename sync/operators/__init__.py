"""Operators of schedulers: they ask the daemon's API for runs, and need their framework and httpx only."""
