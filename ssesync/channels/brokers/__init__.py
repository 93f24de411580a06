"""The brokers: where the log is, and how a process notices the events that other processes append to it."""
