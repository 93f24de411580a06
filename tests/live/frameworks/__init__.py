"""Every behaviour of a served stream, over real sockets, on every server and in every framework."""
