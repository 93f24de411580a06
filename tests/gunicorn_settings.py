"""gunicorn's configuration. It skips names that it does not know, which command line options it would refuse."""

#: One file per user: two gunicorns at once get in each other's way. Newer releases only.
control_socket_disable = True
# A sync worker does not beat while it streams, and a test on a loaded machine may take a while.
timeout = 120
graceful_timeout = 2
