"""A log in Redis, between machines."""
