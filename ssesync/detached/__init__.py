"""Streams that have left the WSGI server: the hand-over, the connections, and the groups that get the same bytes."""
