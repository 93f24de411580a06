"""``tail URL``: follow a stream in the terminal."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import click
import requests
from rich.live import Live
from rich.text import Text

from ..client.source import EventSource
from ..errors import ConnectFailed, ResponseError, RetriesExhausted, SSEError, StatusError
from ..event import Event
from ..retry import Backoff
from ..text import redact
from .options import Request, request_options
from .raw import copy_raw
from .screen import LiveConsole, exiting_on_signals, is_terminal, on_reader_gone, waking_on_signals
from .show import Arrived, Columns, json_line
from .status import Status
from .text import duration_text, escape, excerpt, plural, reason

__all__ = ["tail"]

_EPILOG = """\b
Exit status:
  0  ended as requested: by --count, --until, status 204, the end of the stream
     without reconnection, or because the output was closed
  1  the stream failed, or ended before --count or --until was met
  2  the command line is invalid
  3  there was no stream: no connection, another status, another media type
130  interrupted by Ctrl-C
"""


@dataclass(frozen=True)
class _Selection:
    """The options that select events, their format, and the end of the command."""

    until: str | None
    count: int | None
    as_json: bool
    data_json: bool
    timing: bool
    comments: bool


@click.command(epilog=_EPILOG)
@request_options
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object a line: type, data, id, retry.")
@click.option("--data-json", is_flag=True, help="As --json; data that is JSON is a value, so that jq can read it.")
@click.option("--raw", is_flag=True, help="Write the bytes as they arrive. Does not reconnect.")
@click.option("--timing", is_flag=True, help="Show the time since the start, and since the event before.")
@click.option("--comments", is_flag=True, help="Show comments too, among them keep-alives.")
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="N", help="End after so many events.")
@click.option("--until", metavar="TEXT", help="End at the event with this data, such as [DONE]. It is not shown.")
@click.option(
    "--reconnect/--no-reconnect",
    default=None,
    help="Reconnect, from the first failure on; or never. Without either, GET and other idempotent methods reconnect "
    "once a stream was open.",
)
@click.option("--retries", type=click.IntRange(min=0), metavar="N", help="Reconnect so often in a row at most.")
@click.option(
    "--idle-timeout", type=click.FloatRange(min=0), default=45.0, show_default=True, metavar="SECONDS",
    help="Without a byte for so long a connection counts as dead; 0: never.",
)  # fmt: skip
def tail(raw: bool, reconnect: bool | None, retries: int | None, idle_timeout: float, **options: Any) -> None:
    """Follow the event stream at URL."""
    options["as_json"] |= options["data_json"]
    selection = _Selection(**{each.name: options.pop(each.name) for each in fields(_Selection)})
    request = Request.from_options(options)
    if raw:
        if selection.as_json or selection.timing or selection.comments or reconnect:
            raise click.UsageError(
                "--raw is the bytes as they are: it goes with none of --json, --timing, --comments, --reconnect"
            )
        with exiting_on_signals():
            status = copy_raw(request, idle_timeout or None, until=selection.until, count=selection.count)
    else:
        with exiting_on_signals():
            status = _Tail(request, selection).run(reconnect, retries, idle_timeout or None)
    sys.exit(status)


class _Tail:
    """One run of the command."""

    def __init__(self, request: Request, selection: _Selection) -> None:
        self._request = request
        self._selection = selection
        self._columns = Columns(timing=selection.timing)
        self._status = Status()
        self._console = LiveConsole()
        self._on_terminal = is_terminal(self._console)
        self._opened = 0
        self._waited = False
        self._met = False
        self._reader_gone = False
        self._last_at = 0.0
        self._retry: int | None = None

    def run(self, reconnect: bool | None, retries: int | None, idle_timeout: float | None) -> int:
        """Follow the stream.

        :param reconnect: as for :class:`EventSource`.
        :param retries: reconnect so often in a row at most.
        :param idle_timeout: as for :class:`EventSource`.
        :return: the exit status.
        """
        request = self._request
        source = EventSource(
            request.url,
            method=request.method,
            headers=request.headers,
            data=request.data,
            last_event_id=request.last_event_id,
            verify=request.verify,
            connect_timeout=request.connect_timeout,
            idle_timeout=idle_timeout,
            reconnect=reconnect,
            backoff=Backoff(max_attempts=retries),
            # A mistyped address is an error at once; with --reconnect the command waits until the server has started.
            should_retry=lambda error: None if self._opened or reconnect else False,
            on_open=self._on_open,
            on_retry=self._on_retry,
        )
        self._status.follow(source)

        def leave() -> None:
            self._reader_gone = True
            source.close()

        on_reader_gone(leave)
        with waking_on_signals(source.close), self._live(), self._warnings():
            try:
                self._follow(source)
            except BrokenPipeError:
                raise
            except (SSEError, requests.RequestException, OSError) as error:
                self._notice(_why(error, request.url), "red")
                return 1 if self._opened else 3
            finally:
                source.close()
            if source.response is not None and source.response.status_code == 204:
                self._notice("204: the server has no more events", "green")
            if self._met or self._reader_gone or (self._selection.until is None and self._selection.count is None):
                return 0
            missed = "--until" if self._selection.until is not None else "--count"
            self._notice(f"the stream ended before {missed} was met, after {self._status.summary()}", "red")
            return 1

    def _follow(self, source: EventSource) -> None:
        status, selection = self._status, self._selection
        for event in source.events_and_comments():
            text = event.comment if event.data is None else event.data
            status.size += len((text or "").encode("utf-8", "replace"))
            if event.data is None:
                status.comments += 1
                if not selection.comments:
                    continue
            elif selection.until is not None and event.data == selection.until:
                self._met = True
                return
            else:
                status.events += 1
            self._show(event, source.retry)
            if selection.count is not None and status.events >= selection.count:
                self._met = True
                return

    def _show(self, event: Event, retry: int | None) -> None:
        age = self._status.age
        shown = retry if event.data is not None and retry != self._retry else None
        if event.data is not None:
            self._retry = retry
        if self._selection.as_json and event.retry is not None:
            shown = event.retry  # for programs, even if it was in force already
        arrived = Arrived(event, time.time(), age, age - self._last_at, shown)
        self._last_at = age
        if self._selection.as_json:
            self._write(json_line(arrived, timing=self._selection.timing, decode=self._selection.data_json))
        elif self._on_terminal:
            self._console.print(self._columns.drawn(arrived), crop=False)
        else:
            self._write(self._columns.plain(arrived))

    def _write(self, line: str) -> None:
        if self._on_terminal:
            self._console.print(Text(line.rstrip("\n")), soft_wrap=True)
            return
        # The same bytes whatever the locale.
        sys.stdout.buffer.write(line.encode("utf-8"))
        sys.stdout.buffer.flush()

    def _notice(self, text: str, style: str) -> None:
        """Print a text that is no event: to the error output, above the status line if that is the same terminal."""
        text = escape(text)
        if self._on_terminal and sys.stderr.isatty():
            self._console.print(Text(f"— {text}", style))
        else:
            click.echo(f"ssesync: {text}", err=True)

    def _on_open(self, response: requests.Response) -> None:
        if self._waited:
            sent = response.request.headers.get("Last-Event-ID")
            resumed = "" if sent is None else f", resumed after id {escape(_header_text(sent))}"
            self._notice(f"open again{resumed}", "green")
        self._opened += 1

    def _on_retry(self, error: Exception, delay: float, attempt: int) -> None:
        self._waited = True
        why = _why(error, self._request.url)
        self._status.waiting(delay)
        self._notice(f"{why}; again in {duration_text(delay)}", "yellow")

    @contextlib.contextmanager
    def _live(self) -> Iterator[None]:
        """Show the status line on a terminal, and the counts at its end."""
        if not self._on_terminal:
            yield
            return
        try:
            with Live(
                self._status, console=self._console, transient=True, redirect_stdout=False, redirect_stderr=False
            ):
                yield
        finally:
            if self._opened:
                self._console.print(Text(f"— {self._status.summary()}", "dim"))

    @contextlib.contextmanager
    def _warnings(self) -> Iterator[None]:
        """Show the library's warnings as notices, not within the status line."""
        handler = _Handler(lambda text: self._notice(text, "yellow"))
        logger = logging.getLogger("ssesync")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self, show: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        self._show(escape(record.getMessage()))


def _why(error: Exception, url: str) -> str:
    """Describe an error for a notice."""
    if isinstance(error, RetriesExhausted):
        return f"gave up after {plural(error.attempts, 'reconnection')}: {_why(error.last_error, url)}"
    if isinstance(error, ResponseError):
        response = error.response
        content_type = response.headers.get("Content-Type") or ""
        begins = excerpt(error.body, content_type)
        if isinstance(error, StatusError):
            return f"{response.status_code} {escape(response.reason or '')}{begins}"
        return f"the answer is {escape(content_type) or 'of no media type'}{begins}"
    if isinstance(error, ConnectFailed):
        return f"no answer from {escape(redact(url))}: {reason(error)}"
    return escape(str(error))


def _header_text(value: str | bytes) -> str:
    return (value if isinstance(value, bytes) else value.encode("latin-1")).decode("utf-8", "replace")
