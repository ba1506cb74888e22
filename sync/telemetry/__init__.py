"""What others watch a daemon by: metrics, health, traces, lineage, and the ids in every line of the log."""
