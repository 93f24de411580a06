"""Relay: from bytes to chains of real gateways."""
