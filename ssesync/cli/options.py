"""What both commands ask for: the request, and how long to wait."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

from .. import __version__

__all__ = ["Request", "request_options"]

if TYPE_CHECKING:
    _Type = click.ParamType[Any]  # generic for type checkers in newer releases only
else:
    _Type = click.ParamType

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, repr=False)
class Request:
    """A request as the command line asks for it. Its representation has neither address nor headers."""

    url: str
    method: str
    headers: dict[str, str]
    data: bytes | None
    last_event_id: str
    verify: bool | str
    connect_timeout: float

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Request:
        """Take the options of :func:`request_options` out of ``options``."""
        data, json_body = options.pop("data"), options.pop("json_body")
        if data is not None and json_body is not None:
            raise click.UsageError("--data and --json-body are both the body: give one of them")
        headers = {"User-Agent": f"ssesync/{__version__}"}
        body = data if json_body is None else json_body
        if json_body is not None:
            headers["Content-Type"] = "application/json"
        for name, value in options.pop("header"):
            # As names that differ in case are one, the last one counts.
            headers = {each: said for each, said in headers.items() if each.lower() != name.lower()} | {name: value}
        method = options.pop("method") or ("GET" if body is None else "POST")
        insecure, cacert = options.pop("insecure"), options.pop("cacert")
        if insecure:
            warnings.filterwarnings("ignore", message="Unverified HTTPS request")
        return cls(
            url=options.pop("url"),
            method=method.upper(),
            headers=headers,
            data=body,
            last_event_id=options.pop("last_event_id"),
            verify=not insecure and (cacert or True),
            connect_timeout=options.pop("connect_timeout"),
        )

    def replace(self, **changes: Any) -> Request:
        """A copy with some of it changed."""
        return dataclasses.replace(self, **changes)


class _URL(_Type):
    name = "URL"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        url = value if "://" in value else f"http://{value}"
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018 - raises if it is no number
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            self.fail(f"{value!r} is no http or https address", param, ctx)
        return url


class _Header(_Type):
    name = "HEADER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, colon, said = value.partition(":")
        if not colon or not _HEADER_NAME.fullmatch(name):
            self.fail(f"{value!r} is not 'Name: value'", param, ctx)
        if any(ord(c) < 32 and c != "\t" for c in said):
            self.fail(f"{value!r} holds a control character", param, ctx)
        # A header's bytes are read as UTF-8 by most; they travel one character a byte.
        return name, said.strip().encode("utf-8", "surrogateescape").decode("latin-1")


class _Body(_Type):
    name = "TEXT|@FILE"

    def __init__(self, *, is_json: bool = False) -> None:
        self._is_json = is_json

    def convert(self, value: str | bytes, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        if isinstance(value, bytes):
            return value
        body = self._content(value, param, ctx)
        if self._is_json:
            try:
                json.loads(body)
            except ValueError as error:
                self.fail(f"the body is not JSON: {error}", param, ctx)
        return body

    def _content(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        if value == "@-":
            return sys.stdin.buffer.read()
        if not value.startswith("@"):
            return value.encode("utf-8", "surrogateescape")
        try:
            return Path(value[1:]).read_bytes()
        except OSError as error:
            self.fail(f"{value[1:]}: {error.strerror}", param, ctx)


def _event_id(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if any(c in value for c in "\r\n\0"):
        raise click.BadParameter("an event ID holds no line end and no NUL")
    return value


_OPTIONS = (
    click.argument("url", type=_URL()),
    click.option("-H", "--header", type=_Header(), multiple=True, help="Send 'Name: value'. Repeatable."),
    click.option("-X", "--method", metavar="METHOD", help="GET, or POST with a body, unless given."),
    click.option("-d", "--data", type=_Body(), help="Send a body: text, a file's (@FILE), or what is piped in (@-)."),
    click.option(
        "-j", "--json-body", type=_Body(is_json=True), help="The same, checked to be JSON and sent as application/json."
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
    """Add the options that describe a request to a command."""
    for add in reversed(_OPTIONS):
        command = add(command)
    return command
