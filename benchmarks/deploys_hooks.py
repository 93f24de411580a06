"""gunicorn's configuration of benchmarks.deploys: the library's hooks."""

from ssesync.gunicorn import *  # noqa: F403

#: One file per user: two gunicorns at once get in each other's way.
control_socket_disable = True
timeout = 120
