"""The example projects in a real browser."""
