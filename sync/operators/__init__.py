"""Operators of schedulers that ask the daemon's API for runs; each needs its framework and httpx, nothing of ours."""
