"""The conformance kit, shipped: what connector authors run their connector against.

`ConnectorContract` is a pytest class; `run` does the same without pytest. See `sync.testing.contract`.
"""
