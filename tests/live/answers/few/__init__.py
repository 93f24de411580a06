"""SQLite with few connections."""
