"""The brokers: each keeps the log in another place, and notices the events that other processes append to it."""
