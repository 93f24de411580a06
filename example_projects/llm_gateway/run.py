"""Starts the model's stand-in and two gateways under gunicorn, prints the address, and stops all three on Ctrl-C.

Environment: PORT, the page's (by default a free one), and MODEL_PACE, tokens a second (15).
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# A closed terminal and a plain kill stop the demo as Ctrl-C does.
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KEY = "local"


class Server:
    """One of the three under gunicorn, on a socket that listens already, so that early connections wait."""

    def __init__(self, application, port=0, **variables):
        with socket.create_server(("127.0.0.1", port)) as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            command = [sys.executable, "-m", "gunicorn", "--config", HERE / "gunicorn.conf.py", "--chdir", HERE]
            command += ["--log-level", "warning", "--bind", f"fd://{listener.fileno()}", f"{application}:create_app()"]
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "NO_PROXY": "127.0.0.1", **variables},
                pass_fds=[listener.fileno()],
                # Ctrl-C is for this process, which then stops the servers.
                start_new_session=True,
                stderr=subprocess.PIPE,
            )
        self._ending = False
        threading.Thread(target=self._pass_on, daemon=True).start()

    @property
    def runs(self):
        return self._process.poll() is None

    def hide_errors(self):
        self._ending = True

    def terminate(self):
        self._process.terminate()

    def wait(self):
        try:
            self._process.wait(8)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _pass_on(self):
        """Show gunicorn's errors, until they are to be hidden."""
        for line in self._process.stderr:
            if not self._ending:
                sys.stderr.buffer.write(line)
                sys.stderr.flush()


def main():
    port = os.environ.get("PORT", "").strip() or "0"
    if not (port.isascii() and port.isdecimal()):
        sys.exit(f"PORT takes a number, got {port!r}")
    for end in ENDS:
        signal.signal(end, signal.default_int_handler)
    servers = []
    try:
        servers.append(model := Server("model", MODEL_KEY=KEY))
        servers.append(inner := Server("gateway", UPSTREAM=model.url))
        try:
            servers.append(outer := Server("gateway", int(port), UPSTREAM=inner.url, UPSTREAM_KEY=KEY))
        except (OSError, OverflowError) as error:
            return f"can't listen on port {port}: {error}"
        print(f"\n  model    {model.url}\n  gateway  {inner.url}\n  gateway  {outer.url}")
        print(f"\n  Open {outer.url}/ in a browser. Ctrl-C ends all three.\n", flush=True)
        while all(server.runs for server in servers):
            time.sleep(0.2)
        return "One of the servers has ended."
    except KeyboardInterrupt:
        print("\n  Ended.")
        return 0
    finally:
        for end in ENDS:
            signal.signal(end, signal.SIG_IGN)
        # The model's streams end first, and with them those of the gateways. A gateway may log that the model broke off
        # before it is terminated itself, so what all three log from here on is hidden before the first is terminated.
        for server in servers:
            server.hide_errors()
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


if __name__ == "__main__":
    sys.exit(main())
