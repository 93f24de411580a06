"""WSGI middlewares that stand between a stream and its server, as ``?through=`` says: well behaved ones and others."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Body = Callable[[Iterable[bytes]], Iterable[bytes]]
Headers = list[tuple[str, str]]


def without(headers: Headers, *names: str) -> Headers:
    return [(name, value) for name, value in headers if name.lower() not in names]


def around(body: Body, change: Callable[[Headers], Headers] = list) -> Callable[[WSGIApplication], WSGIApplication]:
    """A middleware that gives the server something else than what the application gave."""

    def middleware(application: WSGIApplication) -> WSGIApplication:
        def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            def start(status: str, headers: Headers, *rest: Any) -> Callable[[bytes], object]:
                return start_response(status, change(headers), *rest)

            return body(application(environ, start))

        return wrapped

    return middleware


def closing(result: Iterable[bytes]) -> None:
    close = getattr(result, "close", None)
    if close is not None:
        close()


class Mapped:
    """Each chunk through a function: an iterator with a ``close`` of its own."""

    def __init__(self, result: Iterable[bytes], each: Callable[[bytes], bytes]) -> None:
        self._result, self._chunks, self._each = result, iter(result), each

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._each(next(self._chunks))

    def close(self) -> None:
        closing(self._result)


def compress(result: Iterable[bytes]) -> Iterable[bytes]:
    """Compresses each chunk, and lets it go at once."""
    stream = zlib.compressobj(wbits=31)
    return Mapped(result, lambda chunk: stream.compress(chunk) + stream.flush(zlib.Z_SYNC_FLUSH))


def rewrite(result: Iterable[bytes]) -> Iterable[bytes]:
    return Mapped(result, bytes.swapcase)


def wrap(result: Iterable[bytes]) -> Iterator[bytes]:
    """Nothing but a generator of its own."""
    try:
        yield from result
    finally:
        closing(result)


def careless(result: Iterable[bytes]) -> Iterator[bytes]:
    """One that forgets to close, which PEP 3333 asks of it."""
    yield from result


def split(result: Iterable[bytes]) -> Iterator[bytes]:
    """Each chunk in two halves."""
    try:
        for chunk in result:
            yield chunk[: len(chunk) // 2]
            yield chunk[len(chunk) // 2 :]
    finally:
        closing(result)


def empty(result: Iterable[bytes]) -> Iterator[bytes]:
    """Nothing before each chunk, as asynchronous applications say that they are not ready (PEP 3333)."""
    try:
        for chunk in result:
            yield b""
            yield chunk
    finally:
        closing(result)


def before(result: Iterable[bytes]) -> Iterator[bytes]:
    """Something of its own first."""
    try:
        yield b":hello\n"
        yield from result
    finally:
        closing(result)


class Prefetched:
    """Takes so many chunks before the server asks for any, as one does that wants to know whether it works."""

    def __init__(self, result: Iterable[bytes], count: int) -> None:
        self._result, self._chunks = result, iter(result)
        self._taken = [next(self._chunks) for _ in range(count)]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._taken.pop(0) if self._taken else next(self._chunks)

    def close(self) -> None:
        closing(self._result)


def one(result: Iterable[bytes]) -> Iterable[bytes]:
    """Takes the first chunk and lets the rest go before the server has anything."""
    first = next(iter(result))
    closing(result)
    return [first]


def one_late(result: Iterable[bytes]) -> Iterator[bytes]:
    """The same, when the server has sent it."""
    try:
        yield next(iter(result))
    finally:
        closing(result)


def none(result: Iterable[bytes]) -> Iterable[bytes]:
    """Lets go of the stream without looking at it."""
    closing(result)
    return []


#: Streams that were never closed.
KEPT: list[Iterable[bytes]] = []


def kept(result: Iterable[bytes]) -> Iterable[bytes]:
    """Takes the first chunk, and holds on to the rest when the server has long closed the connection."""
    KEPT.append(result)
    return [next(iter(result))]


def release() -> None:
    while KEPT:
        closing(KEPT.pop())


def broken(result: Iterable[bytes]) -> Iterator[bytes]:
    """Fails behind the first chunk."""
    try:
        yield next(iter(result))
        raise RuntimeError("a middleware is broken")
    finally:
        closing(result)


def lazy(application: WSGIApplication) -> WSGIApplication:
    """Calls the application when the server asks for the first chunk."""

    def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        result = application(environ, start_response)
        try:
            yield from result
        finally:
            closing(result)

    return wrapped


def writing(application: WSGIApplication) -> WSGIApplication:
    """Sends a line of its own by ``write()``, which PEP 3333 has for old applications."""

    def wrapped(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: Headers, *rest: Any) -> Callable[[bytes], object]:
            write = start_response(status, headers, *rest)
            write(b":hello\n")
            return write

        return application(environ, start)

    return wrapped


#: More than any test's stream comes to.
LENGTH = 100_000


def encoded(headers: Headers) -> Headers:
    return [*without(headers, "content-encoding"), ("Content-Encoding", "gzip")]


def measured(headers: Headers) -> Headers:
    return [*headers, ("Content-Length", str(LENGTH))]


def renamed(headers: Headers) -> Headers:
    return [*without(headers, "content-type"), ("Content-Type", "text/plain")]


def large(headers: Headers) -> Headers:
    """More than most clients take, browsers and proxies among them."""
    return [*headers, *((f"X-Large-{number}", "h" * 4000) for number in range(30))]


THROUGH: dict[str, Callable[[WSGIApplication], WSGIApplication]] = {
    "compress": around(compress, encoded),
    "compress in secret": around(compress),
    "rewrite": around(rewrite),
    "wrap": around(wrap),
    "careless": around(careless),
    "split": around(split),
    "empty": around(empty),
    "before": around(before),
    "prefetch": around(lambda result: Prefetched(result, 1)),
    "prefetch two": around(lambda result: Prefetched(result, 2)),
    "one": around(one),
    "one late": around(one_late),
    "none": around(none),
    "kept": around(kept),
    "broken": around(broken),
    "lazy": lazy,
    "writing": writing,
    "length": around(lambda result: result, measured),
    "rename": around(lambda result: result, renamed),
    "large": around(lambda result: result, large),
}


class Undo:
    """What a client sees behind a middleware, and how it gets back to what the stream sent."""

    def __init__(self, through: str) -> None:
        self._inflate = zlib.decompressobj(31)
        self.through = through

    def __call__(self, data: bytes) -> bytes:
        if self.through.startswith("compress"):
            return self._inflate.decompress(data)
        return data.swapcase() if self.through == "rewrite" else data
