"""Code of users, for type checkers: mypy (``make check``) and pyright (``make types``) read it. Nothing here is run."""
