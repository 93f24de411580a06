"""How gunicorn serves each of the three; it reads this file by itself when started in this folder."""

# Hooks that end streams cleanly when a worker stops; gunicorn finds them by their names.
from ssesync.gunicorn import *  # noqa: F403

worker_class = "gthread"
# Neither the gateways' answers nor the wait for their upstream take one. The model's views do, unless they stream.
threads = 4
# Longer than the gateways wait for unfinished answers (drain_timeout).
graceful_timeout = 15
# Newer releases open a control socket in the user's home directory, which an example should not write to.
control_socket_disable = True
