"""How gunicorn serves this example; it reads this file by itself when started in this folder."""

# Hooks that end streams cleanly when a worker stops; gunicorn finds them by their names.
from ssesync.gunicorn import *  # noqa: F403

# Two processes: a task that one of them makes is followed, and canceled, by way of either.
workers = 2
worker_class = "gthread"
# For ordinary requests only: the streams of tasks take no thread.
threads = 8
# A worker that stops finishes its tasks within this time; another worker begins those that are left anew.
graceful_timeout = 30
# Newer releases open a control socket in the user's home directory, which an example should not write to.
control_socket_disable = True
