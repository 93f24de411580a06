"""A log in an SQLite file, between the processes of one machine."""
