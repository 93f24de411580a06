"""How gunicorn serves this example; it reads this file by itself when started in this folder."""

# Streams end well when a worker does: these are hooks, which gunicorn finds by their names.
from ssesync.gunicorn import *  # noqa: F403

# Two processes: what is pinned in one is seen in the other.
workers = 2
worker_class = "gthread"
# For ordinary requests, which are over in a moment. The streams, of channels all of them, take none.
threads = 8
graceful_timeout = 5
# Newer releases open a control socket in the user's home directory, which an example should leave alone.
control_socket_disable = True
