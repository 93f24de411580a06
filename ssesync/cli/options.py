"""The options of the request, which both commands have."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
from requests.structures import CaseInsensitiveDict

from .. import __version__
from ..wire.http import MEDIA_TYPE, set_last_event_id

__all__ = ["Request", "request_options"]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, repr=False)
class Request:
    """The request of a command line. Its representation has neither URL nor headers."""

    url: str
    method: str
    headers: CaseInsensitiveDict[str]
    data: bytes | None
    last_event_id: str
    verify: bool | str
    connect_timeout: float

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Request:
        """Make the request from a command's options.

        :param options: the command's options. Those of the request are removed.
        :return: the request.
        :raises click.UsageError: two options contradict each other.
        """
        data, json_body = options.pop("data"), options.pop("json_body")
        if data is not None and json_body is not None:
            raise click.UsageError("--data and --json-body are both the body: give one of them")
        headers: CaseInsensitiveDict[str] = CaseInsensitiveDict({"User-Agent": f"ssesync/{__version__}"})
        if json_body is not None:
            data, headers["Content-Type"] = json_body, "application/json"
        headers.update(options.pop("headers"))
        insecure, cacert = options.pop("insecure"), options.pop("cacert")
        if insecure:
            warnings.filterwarnings("ignore", message="Unverified HTTPS request")
        return cls(
            url=options.pop("url"),
            method=(options.pop("method") or ("GET" if data is None else "POST")).upper(),
            headers=headers,
            data=data,
            last_event_id=options.pop("last_event_id"),
            verify=not insecure and (cacert or True),
            connect_timeout=options.pop("connect_timeout"),
        )

    def headers_to_send(self, last_event_id: str = "") -> CaseInsensitiveDict[str]:
        """The headers of a request for an event stream; those of the command line replace the defaults.

        :param last_event_id: resume after this ID; by default after that of the command line.
        :return: the headers.
        """
        headers: CaseInsensitiveDict[str] = CaseInsensitiveDict(
            {"Accept": MEDIA_TYPE, "Accept-Encoding": "identity", "Cache-Control": "no-cache"}
        )
        headers.update(self.headers)
        if last_event_id or self.last_event_id:
            set_last_event_id(headers, last_event_id or self.last_event_id)
        return headers


def _url(ctx: click.Context, param: click.Parameter, value: str) -> str:
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises if it is no number
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: {error}") from error
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise click.BadParameter(f"{value!r} is no http or https address")
    return url


def _headers(ctx: click.Context, param: click.Parameter, lines: tuple[str, ...]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _HEADER_NAME.fullmatch(name):
            raise click.BadParameter(f"{line!r} is not 'Name: value'")
        if any(ord(c) < 32 and c != "\t" for c in value):
            raise click.BadParameter(f"{line!r} holds a control character")
        # Most servers read a header's bytes as UTF-8; requests sends each character as one byte.
        headers[name] = value.strip().encode("utf-8", "surrogateescape").decode("latin-1")
    return headers


def _body(ctx: click.Context, param: click.Parameter, value: str | None) -> bytes | None:
    if value is None or not value.startswith("@"):
        return None if value is None else value.encode("utf-8", "surrogateescape")
    try:
        return sys.stdin.buffer.read() if value == "@-" else Path(value[1:]).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{value[1:]}: {error.strerror}") from error


def _json_body(ctx: click.Context, param: click.Parameter, value: str | None) -> bytes | None:
    body = _body(ctx, param, value)
    try:
        if body is not None:
            json.loads(body)
    except ValueError as error:
        raise click.BadParameter(f"the body is not JSON: {error}") from error
    return body


def _event_id(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if any(c in value for c in "\r\n\0"):
        raise click.BadParameter("an event ID holds no line end and no NUL")
    return value


_OPTIONS = (
    click.argument("url", callback=_url),
    click.option(
        "-H", "--header", "headers", multiple=True, metavar="HEADER", callback=_headers,
        help="Send 'Name: value'. Repeatable.",
    ),
    click.option("-X", "--method", metavar="METHOD", help="Without it GET, or POST with a body."),
    click.option(
        "-d", "--data", metavar="TEXT|@FILE", callback=_body,
        help="Send a body: text, a file (@FILE), or standard input (@-).",
    ),
    click.option(
        "-j", "--json-body", metavar="TEXT|@FILE", callback=_json_body,
        help="The same, checked to be JSON and sent as application/json.",
    ),
    click.option("--last-event-id", default="", metavar="ID", callback=_event_id, help="Resume after this event."),
    click.option("-k", "--insecure", is_flag=True, help="Accept any certificate."),
    click.option("--cacert", type=click.Path(exists=True, dir_okay=False), help="Trust the certificates in this file."),
    click.option(
        "--connect-timeout", type=click.FloatRange(min=0, min_open=True), default=10.0, show_default=True,
        metavar="SECONDS", help="Longest time to wait for a connection.",
    ),
)  # fmt: skip


def request_options(command: _F) -> _F:
    """Add the options that describe a request to a command.

    :param command: the function of the command.
    :return: the same, with the options.
    """
    for add in reversed(_OPTIONS):
        command = add(command)
    return command
