"""The common part of the demos: the example under gunicorn, followed in the terminal until Ctrl-C.

Environment: PORT (by default a free one) and EVENTS, the number of events after which a demo ends by itself.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import requests

from ssesync import SSEError

# A closed terminal and a plain kill stop the demo as Ctrl-C does.
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(folder, follow):
    """Serve the example in a folder and call ``follow`` with its address, the number of events to end after (0: no
    limit) and the server's process. ``follow`` returns the number of events. The result is an exit status."""
    port, events = number("PORT"), number("EVENTS")
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        return f"can't listen on port {port}: {error}"
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    for end in ENDS:
        signal.signal(end, signal.default_int_handler)
    print(f"\n  Open {paint(url, '1;4')} in a browser. Ctrl-C ends the server.\n", flush=True)
    try:
        with gunicorn(folder, listener) as server:
            count = follow(url, events, server)
    except KeyboardInterrupt:
        print("\n  Ended.")
        return 0
    except BrokenPipeError:  # make demo | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (requests.RequestException, SSEError) as error:
        return f"The stream can't be read: {error}"
    return 0 if count == events else "The server ended the stream."


@contextmanager
def gunicorn(folder, listener):
    """The example's server, on a socket that listens already, so that early connections wait and are not refused."""
    command = [sys.executable, "-m", "gunicorn", "--config", folder / "gunicorn.conf.py", "--chdir", folder]
    command += ["--worker-class", "gthread", "--log-level", "warning", "--bind", f"fd://{listener.fileno()}"]
    server = subprocess.Popen(
        [*command, "app:create_app()"],
        pass_fds=[listener.fileno()],
        # Ctrl-C is for this process, which then stops the server.
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    listener.close()
    ending = threading.Event()
    relay = threading.Thread(target=pass_on, args=(server.stderr, ending), daemon=True)
    relay.start()
    try:
        yield server
    finally:
        for end in ENDS:
            signal.signal(end, signal.SIG_IGN)
        ending.set()
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        relay.join(1)


def pass_on(stderr, ending):
    """Show gunicorn's errors until it is stopped. After that it logs the streams that it closes, which is expected."""
    with stderr:
        for line in stderr:
            if not ending.is_set():
                sys.stderr.buffer.write(line)
                sys.stderr.flush()


def paint(text, colour):
    return f"\x1b[{colour}m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def faint(text):
    return paint(text, 2)


def number(name):
    text = os.environ.get(name, "").strip()
    if text and not (text.isascii() and text.isdecimal()):
        sys.exit(f"{name} takes a number, got {text!r}")
    return int(text or 0)
