"""Server-Sent Events for synchronous Python."""

__version__ = "0.1.0"
