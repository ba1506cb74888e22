"""Telling people: what is wrong with a sync, that it is over, and that the daemon works at all."""
