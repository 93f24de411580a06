"""A gunicorn configuration of one's own that takes the hooks in, and gives streams long to end by themselves."""

from ssesync.gunicorn import *  # noqa: F403

control_socket_disable = True
timeout = 120
graceful_timeout = 40
