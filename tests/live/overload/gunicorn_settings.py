"""gunicorn's configuration, with the library's hooks."""

from ssesync.gunicorn import *  # noqa: F403

#: One file per user: two gunicorns at once get in each other's way. Newer releases only.
control_socket_disable = True
# A test on a loaded machine may take a while.
timeout = 120
graceful_timeout = 5
