"""The same with the library's hooks, in a configuration of one's own."""

from ssesync.gunicorn import *  # noqa: F403

control_socket_disable = True
timeout = 120
graceful_timeout = 40
accesslog = "-"
