"""A real nginx, for tests of what stands behind one."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.programs import find_program

_CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log info;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {http}
}}
"""


@contextlib.contextmanager
def nginx_with(
    folder: Path, http: str, *, connections: int = 64, within: float = 20
) -> Iterator[subprocess.Popen[bytes]]:
    """nginx with these directives in its ``http`` block, as soon as it is up. What it keeps is in the folder.

    Started as root, nginx's workers are somebody else; without a master they are not.

    :param connections: how many it can have. A client is two: its own, and the one to the server.
    """
    program = find_program("nginx", "nginx-light")
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder, http=http, connections=connections))
    process = subprocess.Popen(
        [program, "-p", str(folder), "-c", str(configuration)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        end = time.monotonic() + within
        while not (folder / "pid").exists():
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            assert time.monotonic() < end, "nginx did not come up"
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=200)
