"""Starts the upstream, the gateway and many readers, prints the address, and stops all of them on Ctrl-C.

Environment: PORT, the page's (by default a free one), CROWD, the number of readers (300), and PRICES_PACE, events a
second (4).
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# A closed terminal and a plain kill stop the demo as Ctrl-C does.
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def gunicorn(application, port=0, *options, **variables):
    """An application under gunicorn, on a socket that listens already, so that early connections wait."""
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        command = [sys.executable, "-m", "gunicorn", "--config", HERE / "gunicorn.conf.py", "--chdir", HERE, *options]
        command += ["--log-level", "warning", "--bind", f"fd://{listener.fileno()}", f"{application}:create_app()"]
        process = start(command, pass_fds=[listener.fileno()], env={**os.environ, **variables})
        return process, f"http://127.0.0.1:{listener.getsockname()[1]}"


def start(command, **options):
    # Ctrl-C is for this process, which then stops the others.
    return subprocess.Popen(command, start_new_session=True, **options)


def end(process):
    process.terminate()
    try:
        process.wait(8)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main():
    numbers = {name: os.environ.get(name, "").strip() for name in ("PORT", "CROWD")}
    for name, given in numbers.items():
        if given and not (given.isascii() and given.isdecimal()):
            sys.exit(f"{name} takes a number, got {given!r}")
    port, crowd = int(numbers["PORT"] or 0), int(numbers["CROWD"] or 300)
    for each in ENDS:
        signal.signal(each, signal.default_int_handler)
    processes = []
    try:
        # The upstream needs a thread for each of its streams, of which there will be one.
        upstream, address = gunicorn("upstream", 0, "--threads", "8")
        processes.append(upstream)
        try:
            gateway, url = gunicorn("gateway", port, UPSTREAM=f"{address}/prices")
        except (OSError, OverflowError) as error:
            return f"can't listen on port {port}: {error}"
        processes.append(gateway)
        print(f"\n  upstream {address}\n  gateway  {url}")
        print(f"\n  Open {url}/ in a browser. Ctrl-C ends all.\n", flush=True)
        if crowd:
            processes.append(start([sys.executable, HERE / "crowd.py", f"{url}/events", str(crowd)]))
        while all(process.poll() is None for process in processes):
            time.sleep(0.2)
        return "One of them has ended."
    except KeyboardInterrupt:
        print("\n  Ended.")
        return 0
    finally:
        for each in ENDS:
            signal.signal(each, signal.SIG_IGN)
        for process in reversed(processes):
            end(process)


if __name__ == "__main__":
    sys.exit(main())
