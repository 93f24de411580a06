"""Where producers call the test that leads them."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from tests.apps.line import TIMEOUT, Line


class Switchboard:
    """Listens for producers, and hangs up on all of them at the test's end, which ends them."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT)
        self._lines: list[Line] = []
        self.port: int = self._listener.getsockname()[1]

    def answer(self) -> Line:
        """The next call."""
        line = Line(self._listener.accept()[0])
        self._lines.append(line)
        return line

    def producer(self) -> Producer:
        """The next call, which is that of a producer that was just started."""
        line = self.answer()
        message = line.hear()
        assert message is not None
        assert "started" in message
        return Producer(line)

    def check_end(self, producer: Line, reason: str) -> None:
        """Wait until a producer that writes hears of its end, and then for on_close: both for this reason."""
        message = producer.hear()
        while message is not None and "closed" not in message:
            message = producer.hear()
        assert message == {"closed": reason}
        call = self.answer().hear()
        assert call is not None
        assert call["on_close"] == reason

    @contextlib.contextmanager
    def absorbing(self, line: Line) -> Iterator[None]:
        """Hear what the producer says, in a thread, until it hangs up, so that it need not wait for the test."""

        def absorb() -> None:
            for _ in line:
                pass

        thread = threading.Thread(target=absorb)
        thread.start()
        try:
            yield
        except BaseException:
            line.hang_up()
            raise
        finally:
            thread.join()

    def close(self) -> None:
        for line in self._lines:
            line.close()
        self._listener.close()

    def __enter__(self) -> Switchboard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Producer:
    """A producer that waits for orders."""

    def __init__(self, line: Line) -> None:
        self.line = line

    def send(self, data: str, **fields: Any) -> None:
        """Have it write an event."""
        self.line.say(event={"data": data, **fields})

    def end(self) -> None:
        self.line.say(do="end")

    def fail(self) -> None:
        self.line.say(do="fail")

    def ask(self, question: str) -> dict[str, Any]:
        self.line.say(do=question)
        answer = self.line.hear()
        assert answer is not None
        return answer

    def send_until_closed(self) -> dict[str, Any]:
        """Have it write until a write fails, as that of a client that left does at the second or third."""
        for _ in range(400):
            self.send("again")
            try:
                message = self.line.hear(timeout=0.05)
            except TimeoutError:
                continue
            assert message is not None
            return message
        raise AssertionError("the producer's writes go on")

    def farewell(self) -> dict[str, Any]:
        """What it says when its stream was closed."""
        message = self.line.hear()
        assert message is not None
        return message
