"""How gunicorn serves this example; it reads this file by itself when started in this folder."""

# Hooks that end streams cleanly when a worker stops; gunicorn finds them by their names.
from ssesync.gunicorn import *  # noqa: F403

# The sessions and the notes are in the memory of one process.
workers = 1
worker_class = "gthread"
# For ordinary requests only: neither listeners nor slow tools hold one of these threads.
threads = 4
graceful_timeout = 5
# Newer releases open a control socket in the user's home directory, which an example should not write to.
control_socket_disable = True
