"""How gunicorn serves this example; it reads this file by itself when started in this folder."""

# Hooks that end streams cleanly when a worker stops; gunicorn finds them by their names.
from ssesync.gunicorn import *  # noqa: F403

# Any worker has the answers of all: they are in an SQLite file.
workers = 2
worker_class = "gthread"
# For ordinary requests only: neither the model nor the clients that follow an answer hold one of these threads.
threads = 4
# Longer than the time in which answers finish when a worker stops (drain_timeout).
graceful_timeout = 15
# Newer releases open a control socket in the user's home directory, which an example should not write to.
control_socket_disable = True
