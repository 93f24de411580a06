"""Runs: what is produced once, in the background, and followed by any number of clients from its start."""
