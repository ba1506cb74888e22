"""Connectors written as TOML; see `sync.sdk.manifest`."""
