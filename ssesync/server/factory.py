"""Factories: each makes a source of one kind of object that a user passes to an ``EventStream``."""

from __future__ import annotations

import abc
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from ..cancel import CancelToken
from ..errors import CloseReason
from ..producing import Producing, Refusal
from ..wire.http import get_last_event_id
from .checks import check_function, check_iterable
from .producer import InlineProducer, ThreadProducer, close_iterator
from .producers import Slot, producers
from .source import Detachable, Followable, Overload, Source, Streamable
from .starts import View, view_of
from .upstream import InlineUpstream, UpstreamProducer
from .writer import Writer, WriterSource

if TYPE_CHECKING:
    from ..settings import Settings
    from .spec import StreamSpec

__all__ = ["SourceFactory", "WriterFunction", "factory_of", "name_of"]


class SourceFactory(abc.ABC):
    """Makes the source of a stream.

    :param name: the default name of the stream.
    :param user_object: the object that makes the events.
    """

    #: Whether it makes a source for each request.
    repeatable = False
    #: Whether threads may write to the stream, and wait, before it is opened.
    is_live = False
    #: Whether it may run code that reads the body of the request after the client has left the server.
    may_read_body = False
    #: The answer in place of a stream, if there is one.
    answer: Refusal | Overload | None = None

    def __init__(self, name: str, user_object: object = None) -> None:
        self.name = name
        self._user_object = user_object

    def make_token(self) -> CancelToken:
        """The token that is set when the stream ends before its producer does."""
        return CancelToken()

    def is_detachable(self, settings: Settings) -> bool:
        """Whether the reactor can serve the client, once it has the connection.

        :param settings: the stream's.
        """
        return False

    def head_answer(self) -> Refusal | None:
        """The answer to HEAD, if GET would get another one than a stream.

        :return: the answer; ``None``: GET gets a stream, or making the source would show it.
        """
        return None

    def view(self) -> View:
        """Identify the view, by the object that makes the events.

        :return: the same for each request of a view.
        """
        return view_of(self._user_object)

    def reserve(self, spec: StreamSpec) -> Slot | None:
        """Reserve a slot for the producer, which must be released.

        :param spec: the stream's options.
        :return: the slot; ``None`` if all are taken.
        """
        return Slot(spec.name)

    @abc.abstractmethod
    def make(self, spec: StreamSpec, cancelled: CancelToken, environ: Mapping[str, Any], slot: Slot) -> Source:
        """Make the source. It is not open yet.

        :param spec: the stream's options.
        :param cancelled: the stream's token.
        :param environ: the WSGI environ of the request.
        :param slot: the result of :meth:`reserve`. The source releases it.
        :return: the source.
        """

    @abc.abstractmethod
    def discard(self) -> None:
        """Release the user's object: no source will be made of it."""

    def as_producing(self) -> Producing | None:
        """Make an object that writes the events on a thread that may wait: a run's.

        :return: the object; ``None``: the user's object itself is run by threads.
        """
        return None


class ExistingSource(SourceFactory):
    """An existing source: of a Writer, or of a subscription."""

    is_live = True

    def __init__(self, source: Source, name: str) -> None:
        super().__init__(name)
        self._source = source
        self.may_read_body = not isinstance(source, Detachable)

    def is_detachable(self, settings: Settings) -> bool:
        return True

    def head_answer(self) -> Refusal | None:
        return self._source.answer

    def make_token(self) -> CancelToken:
        return self._source.cancelled if isinstance(self._source, WriterSource) else CancelToken()

    def make(self, spec: StreamSpec, cancelled: CancelToken, environ: Mapping[str, Any], slot: Slot) -> Source:
        return self._source

    def discard(self) -> None:
        self._source.cancel(CloseReason.CANCELLED)


class Followed(SourceFactory):
    """An object that makes a source for each client: a run."""

    repeatable = True

    def __init__(self, followable: Followable) -> None:
        super().__init__(type(followable).__name__, followable)
        self._followable = followable

    def is_detachable(self, settings: Settings) -> bool:
        return True

    def make(self, spec: StreamSpec, cancelled: CancelToken, environ: Mapping[str, Any], slot: Slot) -> Source:
        return self._followable.follow(get_last_event_id(environ) or None).as_source()

    def discard(self) -> None:
        """Do nothing: no source was made."""


class Producer(SourceFactory):
    """User code that is run for each stream: on a thread of its own, or step by step if ``threaded`` is off."""

    may_read_body = True

    @abc.abstractmethod
    def run(self, writer: Writer) -> Iterator[Any] | None:
        """Run it.

        :return: an iterator over the items to write; ``None``: it has written all.
        """

    def release(self) -> None:
        """Close its upstream, if it has one. The stream has ended; :meth:`run` was called."""

    def reserve(self, spec: StreamSpec) -> Slot | None:
        if not spec.settings.threaded:
            return super().reserve(spec)
        return producers.reserve(self.view(), spec.name, spec.settings, spec.max_of_view)

    def is_detachable(self, settings: Settings) -> bool:
        return settings.threaded

    def make(self, spec: StreamSpec, cancelled: CancelToken, environ: Mapping[str, Any], slot: Slot) -> Source:
        if not spec.settings.threaded:
            return InlineProducer(self, spec, cancelled, get_last_event_id(environ))
        return ThreadProducer(self, spec, cancelled, get_last_event_id(environ), slot)

    def discard(self) -> None:
        """Close its upstream, if it has one: :meth:`run` will not be called."""


class Items(Producer):
    """An iterable of events."""

    def __init__(self, items: Iterable[Any]) -> None:
        check_iterable(items)
        super().__init__(type(items).__name__, items)
        self._items = items

    def run(self, writer: Writer) -> Iterator[Any]:
        return iter(self._items)

    def discard(self) -> None:
        close_iterator(self._items)  # a generator that was never run, too


class ItemsFunction(Producer):
    """A function without arguments that returns an iterable of events."""

    repeatable = True

    def __init__(self, function: Callable[[], Iterable[Any]]) -> None:
        check_function(function)
        super().__init__(name_of(function), function)
        self._function = function

    def run(self, writer: Writer) -> Iterator[Any]:
        items = self._function()
        check_iterable(items)
        return iter(items)


class WriterFunction(Producer):
    """A function that is called with a writer.

    Its result is ignored; a generator or coroutine is an error, as its code has not run.

    :raises TypeError: it is no function, a coroutine function or a generator function.
    """

    repeatable = True

    def __init__(self, function: Callable[[Writer], object]) -> None:
        if not callable(function):
            raise TypeError(f"from_writer takes a function of a Writer, got {type(function).__name__}")
        check_function(function)
        name = name_of(function)
        if inspect.isgeneratorfunction(function):
            raise TypeError(
                f"{name}() yields, but it is called with a writer: let it call w.write(…), or stream the items that it "
                "yields with event_stream or EventStream(function)"
            )
        super().__init__(name, function)
        self._function = function

    def run(self, writer: Writer) -> None:
        """See :class:`Producer`."""
        result = self._function(writer)
        if inspect.isgenerator(result) or inspect.iscoroutine(result):
            result.close()
            kind = "yields" if inspect.isgenerator(result) else "is asynchronous"
            raise TypeError(f"{self._function!r} {kind}, but a function that is called with a writer must write to it")


class Upstream(Producer):
    """An object of the client's that writes a whole stream: a relay."""

    def __init__(self, relay: Producing) -> None:
        super().__init__(type(relay).__name__, relay)
        self.answer = relay.answer
        self._relay = relay
        # A relay's thread does not read the body of the request: that was sent to the upstream.
        self.may_read_body = not relay.can_tap

    def is_detachable(self, settings: Settings) -> bool:
        return settings.threaded and (self._relay.can_tap or super().is_detachable(settings))

    def make(self, spec: StreamSpec, cancelled: CancelToken, environ: Mapping[str, Any], slot: Slot) -> Source:
        last_event_id = get_last_event_id(environ)
        if not spec.settings.threaded:
            return InlineUpstream(self._relay, self, spec, cancelled, last_event_id)
        return UpstreamProducer(self._relay, self, spec, cancelled, last_event_id, slot)

    def run(self, writer: Writer) -> None:
        self._relay.produce(writer)

    def release(self) -> None:
        self._relay.close()

    discard = release


class NoStream(SourceFactory):
    """An answer in place of a stream."""

    def __init__(self, answer: Refusal | Overload) -> None:
        super().__init__("refusal")
        self.answer = answer

    def make(self, spec: StreamSpec, cancelled: CancelToken, environ: Mapping[str, Any], slot: Slot) -> Source:
        """Never called."""
        raise AssertionError("there is an answer in place of the stream")

    def discard(self) -> None:
        """Do nothing."""


def factory_of(source: object) -> SourceFactory:
    """Make the factory for a user's object. Only this function distinguishes the kinds of objects.

    :param source: the user's object.
    :return: the factory, for one stream or, if it is ``repeatable``, for any number.
    :raises TypeError: the object can't be streamed, or is asynchronous.
    """
    if isinstance(source, SourceFactory):
        return source
    if isinstance(source, Followable):
        return Followed(source)
    if isinstance(source, Streamable):
        return ExistingSource(source.as_source(), type(source).__name__)
    if isinstance(source, Source):
        return ExistingSource(source, type(source).__name__)
    if isinstance(source, Producing):
        return Upstream(source)
    if isinstance(source, (Refusal, Overload)):
        return NoStream(source)
    if callable(source):
        return ItemsFunction(cast(Any, source))
    return Items(cast(Any, source))  # it is checked


def name_of(function: Callable[..., object]) -> str:
    """Find the name of a function, for the log."""
    if isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", type(function).__name__)
