"""The brokers: where a channel's log is, and how this process hears of what others append to it."""
