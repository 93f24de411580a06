"""Each example project under a real server."""
