"""Runs: streams that are produced once, in the background, and followed by any number of clients from their start."""
