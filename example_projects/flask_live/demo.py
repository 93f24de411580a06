"""Starts this example under gunicorn and follows its stream in the terminal, until Ctrl-C.

Environment: PORT (a free one without it) and EVENTS, the number of events after which it ends by itself.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import requests

from ssesync import Reader, SSEError, add_accept_mime

HERE = Path(__file__).resolve().parent
# A closed terminal and a plain kill end all of it as Ctrl-C does.
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def gunicorn(listener):
    """The example's server on a socket that listens already: who connects before it is up waits, and no more."""
    command = [sys.executable, "-m", "gunicorn", "--config", HERE / "gunicorn.conf.py", "--chdir", HERE]
    command += ["--worker-class", "gthread", "--log-level", "warning", "--bind", f"fd://{listener.fileno()}"]
    server = subprocess.Popen(
        [*command, "app:create_app()"],
        pass_fds=[listener.fileno()],
        # Ctrl-C is for us alone: we end the server.
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
    """Show what gunicorn complains of, until it is ended: that it then cuts off streams is no news."""
    with stderr:
        for said in stderr:
            if not ending.is_set():
                sys.stderr.buffer.write(said)
                sys.stderr.flush()


def follow(url, events):
    """Print each event as it arrives; returns how many there were when ``events`` came, or the stream ended."""
    count = 0
    with requests.Session() as session:
        session.trust_env = False  # a proxy has no business with 127.0.0.1
        add_accept_mime(session.headers)
        with session.get(url, stream=True, timeout=(10, 30)) as response:
            for event in Reader(response):
                count += 1
                print(line(event), flush=True)
                if count == events:
                    break
    return count


def line(event):
    told = event.json()
    if event.type == "host":
        size = told["memory"] / 2**30
        text = f"{told['name']}, {told['system']}, Python {told['python']}, {told['cores']} cores, {size:.1f} GB"
        return f"  {faint('host   ')}{text}"
    load = " ".join(f"{value:.2f}" for value in told["load"])
    server = told["server"]
    memory = sum(process["memory"] for process in server) / 2**20
    return (
        f"  {faint('sample ')}{time.strftime('%H:%M:%S', time.localtime(told['time']))}"
        f"  {faint('cpu')} {bar(told['cpu'], 34)}"
        f"  {faint('memory')} {bar(told['memory']['percent'], 36)}"
        f"  {faint('load')} {load}"
        f"  {faint('server')} {len(server)} processes, {memory:.0f} MB"
    )


def bar(percent, colour, width=10):
    eighths = round(percent / 100 * width * 8)
    full = "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else "")
    return f"{paint(full.ljust(width, '·'), colour)} {percent:3.0f} %"


def paint(text, colour):
    return f"\x1b[{colour}m{text}\x1b[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def faint(text):
    return paint(text, 2)


def number(name):
    text = os.environ.get(name, "").strip()
    if text and not (text.isascii() and text.isdecimal()):
        sys.exit(f"{name} takes a number, got {text!r}")
    return int(text or 0)


def main():
    port, events = number("PORT"), number("EVENTS")
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        sys.exit(f"can't listen on port {port}: {error}")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    for end in ENDS:
        signal.signal(end, signal.default_int_handler)
    print(f"\n  Open {paint(url, '1;4')} in a browser. Ctrl-C ends the server.\n", flush=True)
    try:
        with gunicorn(listener):
            count = follow(f"{url}stats", events)
    except KeyboardInterrupt:
        print("\n  Ended.")
        return 0
    except BrokenPipeError:  # make demo | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (requests.RequestException, SSEError) as error:
        return f"The stream can't be read: {error}"
    return 0 if count == events else "The server ended the stream."


if __name__ == "__main__":
    sys.exit(main())
