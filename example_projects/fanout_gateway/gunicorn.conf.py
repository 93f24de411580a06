"""How gunicorn serves the gateway; it reads this file by itself when started in this folder."""

# Streams end well when a worker does: these are hooks, which gunicorn finds by their names.
from ssesync.gunicorn import *  # noqa: F403

# One process that answers one request at a time. A stream is no request any more once its headers are out.
worker_class = "sync"
workers = 1
graceful_timeout = 5
# Newer releases open a control socket in the user's home directory, which an example should leave alone.
control_socket_disable = True
