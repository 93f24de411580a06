"""``python -m ssesync keeper``: hold the clients of a host's workers, so that these can be replaced."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
import time

import click

from ..errors import SettingsError
from ..text import escape
from ..validation import check_sockets
from .broker import broker_file, find_broker
from .failure import Failure

__all__ = ["keeper"]

logger = logging.getLogger("ssesync.keeper")

# Seconds between two attempts to get the address of the metrics from the keeper that is replaced, and after how many
# attempts a warning is logged.
_ADDRESS_RETRY, _ATTEMPTS = 0.2, 300


def _path(ctx: click.Context, param: click.Parameter, value: str) -> str:
    try:
        paths = check_sockets("--bind", value)
    except SettingsError as error:
        raise click.BadParameter(str(error)) from error
    if len(paths) != 1:
        raise click.BadParameter("a keeper has one socket")
    return paths[0]


def _address(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    host, _, port = value.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise click.BadParameter(f"{value!r} is not HOST:PORT, such as 127.0.0.1:9464")
    return host.strip("[]"), int(port)


@click.command()
@click.option("--bind", required=True, metavar="PATH", callback=_path, help="The socket to which workers connect.")
@broker_file
@click.option(
    "--spread",
    type=click.FloatRange(0, 3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="The time over which the clients are ended when the keeper stops.",
)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    callback=_address,
    help="Serve metrics for Prometheus, for example 127.0.0.1:9464.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log a line for each stream that ends.")
@click.option("--replace", is_flag=True, help="Take the place, and all clients, of the keeper that listens at PATH.")
@click.option("--background", is_flag=True, help="Start it in the background, and return when it is the keeper.")
@click.option("--ready-fd", type=int, hidden=True)
@click.option("--status", is_flag=True, help="Print the state of the keeper that listens at PATH, as JSON.")
def keeper(
    bind: str,
    broker_file: str | None,
    spread: float,
    metrics: tuple[str, int] | None,
    verbose: bool,
    replace: bool,
    background: bool,
    ready_fd: int | None,
    status: bool,
) -> None:
    """Hold the clients of channels while workers are replaced.

    Workers find it by SSESYNC_KEEPER=PATH. It needs the same broker as they have, which is not memory://. PATH is in a
    folder that only this user can enter (0700), and that is made if it is missing.

    SIGTERM and SIGINT end the clients over --spread seconds, each with a reconnection time; a second signal ends the
    process at once.
    """
    if status:
        _print_status(bind)
        return
    if background:
        sys.exit(_start_in_background())
    broker = find_broker(broker_file)
    from ..keeper.process import Keeper  # the other commands don't need it
    from ..keeper.upgrade import UpgradeError

    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("ssesync" if verbose else "ssesync.keeper").setLevel(logging.INFO)
    process = Keeper(bind, broker, spread=spread, on_ready=functools.partial(_write_ready, ready_fd))
    process.handle_signals()
    try:
        if metrics is not None:
            _serve_metrics(*metrics, waits=replace)
        process.open()
        process.listen(replace=replace)
    except (OSError, UpgradeError) as error:
        raise Failure(str(error)) from error
    sys.exit(process.run())


def _start_in_background() -> int:
    """Start this command again, as a process that goes on when this one ends, and wait until it is the keeper.

    :return: the exit code: its own, if it has ended before.
    """
    read, write = os.pipe()
    arguments = [each for each in sys.argv[1:] if each != "--background"]
    command = [sys.executable, "-m", "ssesync", *arguments, "--ready-fd", str(write)]
    process = subprocess.Popen(command, pass_fds=[write], start_new_session=True)
    os.close(write)
    return 0 if os.read(read, 1) else process.wait()


def _write_ready(fd: int | None) -> None:
    """End the wait of :func:`_start_in_background`."""
    if fd is not None:
        with contextlib.suppress(BrokenPipeError):  # that process is gone
            os.write(fd, b"1")
        os.close(fd)


def _print_status(path: str) -> None:
    from ..keeper.status import ask_status

    try:
        described = ask_status(path)
    except (OSError, ValueError) as error:
        raise Failure(f"the keeper at {path} does not answer: {error}") from error
    click.echo(json.dumps(described, indent=2))


def _serve_metrics(host: str, port: int, *, waits: bool) -> None:
    """Serve the metrics, on threads of their own.

    :param waits: whether the keeper that runs may still have the address: then it is tried again until that one ends.
    :raises OSError: the address can't be used.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server

        from ..prometheus import StreamsCollector
    except ModuleNotFoundError as error:
        raise Failure("--metrics needs prometheus_client: pip install 'ssesync[prometheus]'") from error
    registry = CollectorRegistry()
    registry.register(StreamsCollector())
    try:
        start_http_server(port, host, registry)
    except OSError:
        if not waits:
            raise

        def serve() -> None:
            for attempt in itertools.count(1):
                time.sleep(_ADDRESS_RETRY)
                with contextlib.suppress(OSError):
                    start_http_server(port, host, registry)
                    return
                if attempt == _ATTEMPTS:
                    logger.warning("another process has the address of the metrics, %s port %d", escape(host), port)

        threading.Thread(target=serve, name="ssesync-metrics", daemon=True).start()
