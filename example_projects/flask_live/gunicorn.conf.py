"""How gunicorn serves this example; it reads this file by itself when started in this folder."""

# Hooks that end streams cleanly when a worker stops; gunicorn finds them by their names.
from ssesync.gunicorn import *  # noqa: F403

worker_class = "gthread"
# A stream that can't be detached holds one thread.
threads = 32
graceful_timeout = 5
# Newer releases open a control socket in the user's home directory, which an example should not write to.
control_socket_disable = True
