"""Canaries: secrets and personal data planted everywhere, and a scan of everything that is left behind."""
