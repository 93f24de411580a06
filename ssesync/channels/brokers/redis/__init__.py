"""A log in Redis, for several machines."""
