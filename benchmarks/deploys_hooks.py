"""gunicorn's configuration of benchmarks.deploys: the library's hooks, ``BENCH_WAY`` says for what."""

import os

from ssesync.gunicorn import *  # noqa: F403

#: One file per user: two gunicorns at once get in each other's way.
control_socket_disable = True
timeout = 120

if os.environ["BENCH_WAY"] == "nothing":
    # Without these hooks no worker finds another one.
    for _name in ("pre_fork", "post_fork"):
        globals().pop(_name, None)
