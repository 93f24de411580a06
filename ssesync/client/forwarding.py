"""Forwarding: the request to a relay's upstream, made from the client's, and the headers of the upstream's response
that are passed on."""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import requests

from ..validation import check_number
from ..wire.http import HOP_BY_HOP, MEDIA_TYPE, get_last_event_id, set_last_event_id
from .connect import get_response
from .options import RelayOptions, check_request_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FORWARDED", "Forwarded", "Passing", "forwarded", "passed_headers", "passing_of", "relay_request"]

#: The names of the headers that are forwarded unless others are named.
FORWARDED = ("Accept-Language", "Content-Type", "User-Agent")


class Passing(NamedTuple):
    """What of an upstream's response the client gets, beside an event stream: see :class:`ssesync.Relay`."""

    #: The names of the headers, in lower case.
    headers: frozenset[str] = frozenset()
    #: In bytes; ``None``: the default.
    max_body: int | None = None

    @classmethod
    def checked(cls, pass_headers: Iterable[str], max_body: int | None) -> Passing:
        """Check the arguments of a relay.

        :param pass_headers: the names of headers.
        :param max_body: in bytes.
        :return: them.
        :raises TypeError: the names are text, whose letters would be the names.
        :raises SettingsError: the size is no positive whole number.
        """
        if isinstance(pass_headers, (str, bytes)):
            raise TypeError(
                f"pass_headers takes a list of names, got {pass_headers!r}: pass_headers=[{pass_headers!r}]"
            )
        check_number("max_body", max_body, above=0, whole=True, optional=True)
        return cls(frozenset(name.strip().lower() for name in pass_headers), max_body)


class Forwarded(NamedTuple):
    """A request to an upstream that was not made yet."""

    session: requests.Session | None
    method: str
    url: str
    headers: dict[str, Any]
    options: dict[str, Any]

    def send(self) -> requests.Response:
        """Make it, and wait for the head of the response.

        :return: the response.
        """
        send = requests.request if self.session is None else self.session.request
        call = functools.partial(send, self.method, self.url, headers=self.headers, **self.options)
        return get_response(call, self.headers["Accept"])


def relay_request(
    request: Any,
    url: str,
    *,
    session: requests.Session | None = None,
    forward: Iterable[str] = FORWARDED,
    pass_headers: Iterable[str] = (),
    max_body: int | None = None,
    **options: Unpack[RelayOptions],
) -> requests.Response:
    """Send a client's request to an upstream: the same method, query, body and last event ID, and some of its headers.

    :param request: a WSGI environ, or a Flask or Django request.
    :param url: the upstream's URL. Take it from your code, never from the client: it could reach your network.
    :param session: a session to send it with, which is not closed.
    :param forward: the names of the headers to forward; by default those of language and body. Hop-by-hop headers and
        cookies are never forwarded. Add ``"Authorization"`` only if the upstream may see it.
    :param pass_headers: the names of headers of the response that its :class:`Relay` passes on, unless the relay is
        given names itself.
    :param max_body: the bytes of a response that is no event stream, which its :class:`Relay` passes on, likewise.
    :param options: those of ``requests``: ``headers``, ``timeout``, ``auth``, ``json``, ``data``, … They take
        precedence.
    :return: the response, with ``stream=True``, for :class:`Relay`.
    """
    check_request_options(relay_request, session, options.keys(), RelayOptions)
    passing = Passing.checked(pass_headers, max_body)
    response = forwarded(request, url, session=session, forward=forward, **options).send()
    setattr(response, _PASSING, passing)
    return response


def passing_of(response: Any) -> Passing:
    """Find the arguments that :func:`relay_request` has kept with its response.

    :param response: any response.
    :return: the arguments; the defaults for a response that it has not made.
    """
    passing = getattr(response, _PASSING, None)
    return passing if isinstance(passing, Passing) else Passing()


def forwarded(
    request: Any, url: str, *, session: requests.Session | None, forward: Iterable[str], **options: Any
) -> Forwarded:
    """Prepare the request of :func:`relay_request`. The body of the client's request is read.

    :return: the request, which was not sent yet.
    """
    environ = request if isinstance(request, Mapping) else getattr(request, "environ", None) or request.META
    headers = {}
    for name in _allowed(forward, environ, options):
        key = name.upper().replace("-", "_")
        value = environ.get(key if key == "CONTENT_TYPE" else f"HTTP_{key}")
        if value:
            headers[name] = value
    headers["Accept"] = MEDIA_TYPE
    headers["Accept-Encoding"] = "identity"
    headers["Cache-Control"] = "no-cache"
    # A header can't begin with a space; an ID from the query can.
    set_last_event_id(headers, get_last_event_id(environ).strip(" "))
    headers.update(options.pop("headers", None) or {})
    if not any(name in options for name in _BODIES):
        options["data"] = _request_body(request, environ) or None
    # The client's query: bytes above ASCII, which some clients don't quote, are quoted one by one.
    options.setdefault("params", quote(environ.get("QUERY_STRING", ""), safe=_PRINTABLE, encoding="latin-1") or None)
    options.setdefault("stream", True)
    return Forwarded(session, options.pop("method", environ["REQUEST_METHOD"]), url, headers, options)


def passed_headers(response: Any, names: frozenset[str]) -> list[tuple[str, str]]:
    """Find the headers of an upstream's response that are passed on.

    :param response: the response.
    :param names: the names to pass on, in lower case.
    :return: the headers. Without those of the connection, those of the body, which is another one here, and cookies, as
        with the request.
    """
    if not names:
        return []
    named = {name.strip().lower() for name in str(response.headers.get("Connection") or "").split(",")}
    wanted = names - named - _NEVER_PASSED
    return [
        (name, _CONTROLS.sub(" ", value).strip()) for name, value in response.headers.items() if name.lower() in wanted
    ]


# The attribute of a response with its Passing.
_PASSING = "_ssesync_passing"
_BODIES = ("data", "json", "files")
_NEVER_PASSED = HOP_BY_HOP | {"content-encoding", "content-length", "content-type", "proxy-connection", "set-cookie"}
# Of a value that was folded over several lines, for example.
_CONTROLS = re.compile("[\x00-\x1f\x7f]+")
_PRINTABLE = string.ascii_letters + string.digits + string.punctuation
# Never forwarded: hop-by-hop headers, those about the connection and the body's transfer, and the client's cookies.
_NEVER = HOP_BY_HOP | {"content-length", "cookie", "expect", "host", "proxy-connection"}


def _allowed(forward: Iterable[str], environ: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """The names of the headers that may be forwarded."""
    never = _NEVER | {name.strip().lower() for name in environ.get("HTTP_CONNECTION", "").split(",")}
    if "json" in options or "files" in options or not isinstance(options.get("data", b""), (str, bytes, type(None))):
        never |= {"content-type"}  # it described another body
    return [name for name in forward if name.lower() not in never]


def _request_body(request: Any, environ: Mapping[str, Any]) -> bytes:
    if hasattr(request, "get_data"):
        body: bytes = request.get_data()
        return body
    if hasattr(request, "body"):
        return bytes(request.body)
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if not length and environ.get("wsgi.input_terminated"):
        return bytes(environ["wsgi.input"].read())  # chunked, and the server marks its end
    return bytes(environ["wsgi.input"].read(length)) if length else b""
