"""How gunicorn serves the gateway; it reads this file by itself when started in this folder."""

# Hooks that end streams cleanly when a worker stops; gunicorn finds them by their names.
from ssesync.gunicorn import *  # noqa: F403

# One process that answers one request at a time. A stream is no longer a request when its headers are sent.
worker_class = "sync"
workers = 1
graceful_timeout = 5
# Newer releases open a control socket in the user's home directory, which an example should not write to.
control_socket_disable = True
