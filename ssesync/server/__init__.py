"""Event streams under WSGI: made, limited, watched, and ended."""
