"""How gunicorn serves this example; it reads this file by itself when started in this folder."""

# Hooks that end streams cleanly when a worker stops; gunicorn finds them by their names.
from ssesync.gunicorn import *  # noqa: F403

# Two processes: a message that is sent through one reaches the pages of the other.
workers = 2
worker_class = "gthread"
# For ordinary requests only: the streams are subscriptions to channels, which take no thread.
threads = 8
graceful_timeout = 5
# Newer releases open a control socket in the user's home directory, which an example should not write to.
control_socket_disable = True
