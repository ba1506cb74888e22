"""Headgate's tests: unit, connectors, state, integration, acceptance and packaging."""
