"""Detached streams on each server: what is on the wire, byte for byte, and what is left in the process afterwards."""
