"""How a source is made of what a user gives to an ``EventStream``. Only this module distinguishes the kinds."""

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
from .producers import Place, producers
from .source import Detachable, Followable, Overload, Source, Streamable
from .starts import View, view_of
from .upstream import InlineUpstream, UpstreamProducer
from .writer import Writer, WriterSource

if TYPE_CHECKING:
    from ..settings import Settings
    from .spec import StreamSpec

__all__ = ["SourceFactory", "WriterFunction", "factory_of"]


class SourceFactory(abc.ABC):
    """Makes the source of a stream.

    :param name: what log lines call a stream that was given no name.
    :param user_object: what makes the events.
    """

    #: Whether each request gets a source of its own.
    repeatable = False
    #: Whether threads may write to the stream, and wait, although it was never opened.
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

    def view(self) -> View:
        """Identify what makes the events.

        :return: the same for each request of a view.
        """
        return view_of(self._user_object)

    def reserve(self, spec: StreamSpec) -> Place | None:
        """Take the place of a source among those of this process, which must be released.

        :param spec: what the stream is made of.
        :return: ``None``: there is none.
        """
        return Place(spec.name)

    @abc.abstractmethod
    def make(self, spec: StreamSpec, cancelled: CancelToken, environ: Mapping[str, Any], place: Place) -> Source:
        """Make the source. It is not open yet.

        :param spec: what the stream is made of.
        :param place: what :meth:`reserve` has given. The source releases it.
        :param cancelled: the stream's token.
        :param environ: the WSGI environ of the request.
        """

    @abc.abstractmethod
    def discard(self) -> None:
        """Release what the user gave: no source will be made of it."""


class Given(SourceFactory):
    """An existing source: of a Writer, or of a subscription."""

    is_live = True

    def __init__(self, source: Source, name: str) -> None:
        super().__init__(name)
        self._source = source
        self.may_read_body = not isinstance(source, Detachable)

    def is_detachable(self, settings: Settings) -> bool:
        return True

    def make_token(self) -> CancelToken:
        return self._source.cancelled if isinstance(self._source, WriterSource) else CancelToken()

    def make(self, spec: StreamSpec, cancelled: CancelToken, environ: Mapping[str, Any], place: Place) -> Source:
        return self._source

    def discard(self) -> None:
        self._source.cancel(CloseReason.CANCELLED)


class Followed(SourceFactory):
    """An object that gives each client a source of its own: a run."""

    repeatable = True

    def __init__(self, given: Followable) -> None:
        super().__init__(type(given).__name__, given)
        self._given = given

    def is_detachable(self, settings: Settings) -> bool:
        return True

    def make(self, spec: StreamSpec, cancelled: CancelToken, environ: Mapping[str, Any], place: Place) -> Source:
        return self._given.follow(get_last_event_id(environ) or None).as_source()

    def discard(self) -> None:
        """Release nothing: no source was made."""


class Producer(SourceFactory):
    """User code that is run for each stream: on a thread of its own, or step by step if ``threaded`` is off."""

    may_read_body = True

    @abc.abstractmethod
    def run(self, writer: Writer) -> Iterator[Any] | None:
        """Run it.

        :return: an iterator over the items that are to be written; ``None``: all was written.
        """

    def release(self) -> None:
        """Close what it reads from. The stream has ended; :meth:`run` was called."""

    def reserve(self, spec: StreamSpec) -> Place | None:
        if not spec.settings.threaded:
            return super().reserve(spec)
        return producers.reserve(self.view(), spec.name, spec.settings, spec.max_of_view)

    def is_detachable(self, settings: Settings) -> bool:
        return settings.threaded

    def make(self, spec: StreamSpec, cancelled: CancelToken, environ: Mapping[str, Any], place: Place) -> Source:
        if not spec.settings.threaded:
            return InlineProducer(self, spec, cancelled, get_last_event_id(environ))
        return ThreadProducer(self, spec, cancelled, get_last_event_id(environ), place)

    def discard(self) -> None:
        """Release what it reads from: :meth:`run` will not be called."""


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
        super().__init__(_name_of(function), function)
        self._function = function

    def run(self, writer: Writer) -> Iterator[Any]:
        items = self._function()
        check_iterable(items)
        return iter(items)


class WriterFunction(Producer):
    """A function that is given a writer.

    Its result has no meaning, except a generator or coroutine: then nothing of it was run.

    :raises TypeError: it is no function, a coroutine function or a generator function.
    """

    repeatable = True

    def __init__(self, function: Callable[[Writer], object]) -> None:
        if not callable(function):
            raise TypeError(f"from_writer takes a function that is given a Writer, got {type(function).__name__}")
        check_function(function)
        name = _name_of(function)
        if inspect.isgeneratorfunction(function):
            raise TypeError(
                f"{name}() yields, but it is given a writer: let it write to that, w.write(…), or stream what "
                "it yields, with event_stream or EventStream(function)"
            )
        super().__init__(name, function)
        self._function = function

    def run(self, writer: Writer) -> None:
        """See :class:`Producer`."""
        result = self._function(writer)
        if inspect.isgenerator(result) or inspect.iscoroutine(result):
            result.close()
            kind = "yields" if inspect.isgenerator(result) else "is asynchronous"
            raise TypeError(f"{self._function!r} {kind}, but a function that is given a writer writes to it")


class Upstream(Producer):
    """An object of another room that writes a whole stream: a relay."""

    def __init__(self, given: Producing) -> None:
        super().__init__(type(given).__name__, given)
        self.answer = given.answer
        self._given = given
        # A relay's thread reads no body of the request: that is gone to the upstream.
        self.may_read_body = not given.can_tap

    def is_detachable(self, settings: Settings) -> bool:
        return settings.threaded and (self._given.can_tap or super().is_detachable(settings))

    def make(self, spec: StreamSpec, cancelled: CancelToken, environ: Mapping[str, Any], place: Place) -> Source:
        last_event_id = get_last_event_id(environ)
        if not spec.settings.threaded:
            return InlineUpstream(self._given, self, spec, cancelled, last_event_id)
        return UpstreamProducer(self._given, self, spec, cancelled, last_event_id, place)

    def run(self, writer: Writer) -> None:
        self._given.produce(writer)

    def release(self) -> None:
        self._given.close()

    discard = release


class Instead(SourceFactory):
    """An answer in place of a stream."""

    def __init__(self, answer: Refusal | Overload) -> None:
        super().__init__("refusal")
        self.answer = answer

    def make(self, spec: StreamSpec, cancelled: CancelToken, environ: Mapping[str, Any], place: Place) -> Source:
        """There is none."""
        raise AssertionError("there is an answer in place of the stream")

    def discard(self) -> None:
        """There is nothing to release."""


def factory_of(given: object) -> SourceFactory:
    """How a source is made of what a user gave.

    :return: the factory, for one stream or, where it is ``repeatable``, for any number.
    :raises TypeError: it is nothing that gives events, or asynchronous.
    """
    if isinstance(given, SourceFactory):
        return given
    if isinstance(given, Followable):
        return Followed(given)
    if isinstance(given, Streamable):
        return Given(given.as_source(), type(given).__name__)
    if isinstance(given, Source):
        return Given(given, type(given).__name__)
    if isinstance(given, Producing):
        return Upstream(given)
    if isinstance(given, (Refusal, Overload)):
        return Instead(given)
    if callable(given):
        return ItemsFunction(cast(Any, given))
    return Items(cast(Any, given))  # it is checked


def _name_of(function: Callable[..., object]) -> str:
    if isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", type(function).__name__)
