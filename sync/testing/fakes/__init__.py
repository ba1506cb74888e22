"""Destinations that stand in for the real ones: stateful, in process, and on the loopback where asked."""
