"""Reading event streams over requests."""
