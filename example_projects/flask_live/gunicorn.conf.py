"""How gunicorn serves this example; it reads this file by itself when started in this folder."""

worker_class = "gthread"
# Each open stream holds one thread.
threads = 32
# What still streams when the server is told to stop is cut off after this many seconds.
graceful_timeout = 1
# Newer releases open a control socket in the user's home directory, which an example should leave alone.
control_socket_disable = True
