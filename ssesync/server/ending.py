"""The last bytes of a stream that its producer did not end.

A client that reconnects with a last event ID misses no event. It is sent a reconnection time (``retry:``), and its
answer ends as a complete one. A client that can't resume would accept an orderly end as a complete answer: OpenAI's SDK
returned 46 of 202 chunks without an error when the server was stopped. Such a client is sent an error event, and its
answer is *incomplete* by HTTP's rules, see ``incomplete.py``.
"""

from __future__ import annotations

import contextvars
import functools
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import CloseReason, StreamClosed, excerpt
from ..event import Event
from ..locks import foreign
from ..settings import Settings
from ..text import escape
from ..wire.encoder import encode
from .framing import make_trailer
from .incomplete import Remains, cut
from .refusal import is_event_source

if TYPE_CHECKING:
    from .source import Source

__all__ = ["Ending", "encode_error", "finishes"]

logger = logging.getLogger("ssesync")

#: No more can be sent: the client has left, or does not read.
ABSENT = (CloseReason.CLIENT_GONE, CloseReason.STALLED)

# For these reasons many streams end together. Their clients get the trailer, so that they don't reconnect together.
_WITH_TRAILER = (CloseReason.SHUTDOWN, CloseReason.LIFETIME, CloseReason.CANCELLED)

# The messages for clients. The exception itself is for the log: it may hold secrets.
_MESSAGES = {
    CloseReason.ERROR: "The stream ended because of an error on the server.",
    CloseReason.SHUTDOWN: "The stream ended before it was complete, because the server is stopping.",
    CloseReason.LIFETIME: "The stream ended before it was complete, because it reached its maximum lifetime.",
}
_OTHERWISE = "The server ended the stream before it was complete."


def default_error(reason: CloseReason) -> bytes:
    """The error event on which the SDKs of OpenAI and Anthropic raise.

    OpenAI's checks ``error`` in the data, Anthropic's the event's type and then the data.
    """
    message = _MESSAGES.get(reason, _OTHERWISE)
    error = {"message": message, "type": "server_error", "code": None}
    return encode(Event.from_json({"message": message, "type": "error", "error": error}, type="error"))


def encode_error(
    settings: Settings, reason: CloseReason, error: BaseException | None, name: str, *, call: bool = True
) -> bytes:
    """Make the error event of a stream from ``settings.error_event``, else the default one.

    This calls the application's function. If that fails, the failure is logged and the default event is used.

    :param settings: the stream's.
    :param reason: why the stream ends.
    :param error: the producer's exception; ``None``: the function is called with a :class:`StreamClosed`.
    :param name: the stream's, for the log.
    :param call: whether a function may be called; if not, the default event is used.
    :return: the encoded event.
    """
    made = settings.error_event
    if made is not None and (call or isinstance(made, Event)):
        if not isinstance(made, Event):
            foreign("error_event")
        try:
            event = made if isinstance(made, Event) else made(error or StreamClosed(reason))
            if not isinstance(event, Event) or event.data is None:
                raise TypeError(f"error_event must return an Event with data, got {excerpt(event)}")
            return encode(event)
        except Exception:
            logger.exception(
                "error_event of the event stream %s failed: its client gets the default error event", escape(name)
            )
    return default_error(reason)


def finishes(settings: Settings, orderly: bool) -> bool:
    """Whether a stream continues to its own end when the process stops.

    :param settings: the stream's.
    :param orderly: whether its client can resume.
    :return: whether it does.
    """
    return settings.drain == "finish" or (settings.drain == "auto" and not orderly)


class Ending:
    """The end of one stream. :meth:`is_orderly` and :meth:`finishes` are for any thread, the other methods are for the
    thread that serves it.

    :param settings: the stream's.
    :param name: the stream's, for the log.
    :param context: the application's ``error_event`` is called in it.
    """

    __slots__ = ("_context", "_ended", "_get", "_is_event_source", "_name", "_remains", "_settings", "torn")

    def __init__(self, settings: Settings, name: str, context: contextvars.Context) -> None:
        self._settings = settings
        # Only if it is needed: a context refers to the request and all that the request refers to.
        self._context = context if callable(settings.error_event) else None
        self._name = name
        self._get, self._is_event_source = True, False
        self._ended = False
        self._remains: Remains | None = None
        #: Whether the client was sent only a part of an event: then no error event can follow.
        self.torn = False

    def set_request(self, environ: Mapping[str, Any]) -> None:
        """Note the properties of the request by which a client counts as able to resume.

        :param environ: the WSGI environ, ``{}`` without a request. It is not kept.
        """
        # Only a GET can be repeated without being done twice (RFC 9110, section 9.2.2).
        self._get = environ.get("REQUEST_METHOD", "GET") == "GET"
        self._is_event_source = is_event_source(environ)

    def is_orderly(self, has_ids: bool, reason: CloseReason | None = None) -> bool:
        """Whether the answer may end as a complete one, since its client can resume.

        :param has_ids: whether the client was sent an event ID to resume from.
        :param reason: why the stream ends; ``None``: for another reason than a failure.
        :return: whether it may.
        """
        if self._settings.resumable != "auto":
            return self._settings.resumable
        failed = reason is CloseReason.ERROR
        return (self._get and has_ids) or (self._is_event_source and not failed)

    def finishes(self, source: Source | None) -> bool:
        """Whether the stream continues to its own end, for a limited time, when the process stops."""
        return finishes(self._settings, self.is_orderly(source is not None and source.resumable))

    def last_bytes(self, source: Source) -> bytes:
        """Make the last bytes of the stream, after all pending writes.

        :param source: the stream's, which has ended.
        :return: for a client that can resume, a reconnection time if many streams end together, and no bytes otherwise
            (revoked, too slow); for others the error event. ``b""`` from the second call on.
        """
        reason = source.reason or CloseReason.DONE
        if self._ended or self.torn or reason is CloseReason.DONE or reason in ABSENT:
            return b""
        self._ended = True
        if source.error is None and self.is_orderly(source.resumable, reason):
            return make_trailer(self._settings) if reason in _WITH_TRAILER else b""
        run = functools.partial(encode_error, self._settings, reason, source.error, self._name)
        return run() if self._context is None else self._context.run(run)

    def end_answer(self, source: Source, environ: Mapping[str, Any]) -> BaseException | None:
        """End the server's answer, by the source's reason. No other code may use the client's socket after this.

        :param source: the stream's, which has ended.
        :param environ: the WSGI environ of the request.
        :return: an exception that the iterable must raise instead of ``StopIteration``, if that is the only method.
        """
        reason = source.reason or CloseReason.DONE
        if reason is CloseReason.DONE or self.is_orderly(source.resumable, reason):
            return None
        result = cut(environ, at_once=reason in ABSENT)
        if isinstance(result, BaseException):
            return result
        self._remains = result
        return None

    def close(self) -> None:
        """Release the descriptors that ended the answer, when the server has closed it. Any number of times."""
        remains, self._remains = self._remains, None
        if remains is not None:
            remains.close()
