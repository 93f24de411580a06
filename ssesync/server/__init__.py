"""A stream that lives well under WSGI."""
