"""Customer.io: people and manual segments, from the manifest `manifests/customerio.toml`."""

from sync.sdk.manifest import connector

__all__ = ["CustomerIO"]

CustomerIO = connector("connectors.manifests", "customerio.toml")
