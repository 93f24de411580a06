"""Links of other processes: each is served on a thread of its own, which takes clients and answers other messages."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..channels.broker import open_brokers
from ..channels.counters import Counters
from ..errors import BrokerError
from ..locks import Waiters
from ..text import escape
from .batch import Batch
from .framing import DescriptorsLost, Frame, Link, LinkError, LinkLost, LinkTimeout
from .peer import Listener, PeerRefused, accept_link, greet, refuse

if TYPE_CHECKING:
    from ..channels.broker import Broker

__all__ = ["MAX_LINKS", "Handler", "Importer", "epochs"]

logger = logging.getLogger("ssesync")

#: Links at a time. A worker needs one or two, and a host has some dozens of workers. Each link takes a thread, and up
#: to 9 MB while a message arrives.
MAX_LINKS = 64

# Seconds between two attempts to accept a link while there are no descriptors.
_RETRY = 0.1
# Seconds for which a line that is equal to an earlier one is not logged, and different lines in that time.
_SILENCE, _LINES = 60.0, 100

#: Answers a message: called with the link and the message, on the link's thread, where it may wait. Returns the answer,
#: or ``None`` for none.
Handler = Callable[[Link, Frame], "Mapping[str, Any] | None"]


class Importer:
    """Serves the links of other processes: takes their clients, and answers other messages. Any thread.

    :param brokers: finds the brokers whose clients are taken.
    :param handlers: for other messages, by their ``op``.
    :param max_links: links at a time; a further process is refused.
    """

    def __init__(
        self,
        brokers: Callable[[], Iterable[Broker]] = open_brokers,
        handlers: Mapping[str, Handler] | None = None,
        *,
        max_links: int = MAX_LINKS,
    ) -> None:
        self._brokers = brokers
        self._handlers = dict(handlers or {})
        self._max_links = max_links
        self._links: dict[Link, None] = {}
        self._ended = Waiters()
        self._logged: dict[str, float] = {}
        self._counters = Counters("taken", "refused", "recovered")
        #: Why no client is taken from now on; empty: they are taken.
        self.refusing = ""

    def start(self, listener: Listener, hello: Callable[[], Mapping[str, Any]]) -> None:
        """Accept links until the listener is closed, and serve each on a thread of its own.

        :param listener: the listener. It remains the caller's.
        :param hello: makes the hello for a link, see :func:`ssesync.keeper.peer.make_hello`. It may wait.
        :raises RuntimeError: no more threads can be started.
        """
        threading.Thread(target=self._accept, args=(listener, hello), name="ssesync-links", daemon=True).start()

    def serve(self, link: Link) -> None:
        """Serve a link until it ends. The caller closes it.

        :param link: the link, after the hellos.
        :raises LinkError: the other process has sent something that is no message.
        """
        self._links[link] = None
        try:
            with contextlib.suppress(LinkLost), link.hold():
                while True:
                    self._serve_one(link)
        finally:
            self._links.pop(link, None)
            self._ended.wake()

    def snapshot(self) -> dict[str, int]:
        """Get the counters.

        :return: ``links`` now; and since the start ``taken`` and ``refused`` clients, and those of the taken ones that
            were ``recovered``, as their process had ended before it was sent the acknowledgement.
        """
        return {"links": len(self._links), **self._counters.snapshot()}

    def links(self) -> list[Link]:
        """Get the links that are open now.

        :return: the links. One without a hello has an empty ``peer``.
        """
        return list(self._links)

    def cancel(self) -> None:
        """Cancel all links. Batches that were not acknowledged remain with their processes. Any signal handler."""
        for link in list(self._links):
            link.cancel()

    def wait(self, timeout: float) -> bool:
        """Wait until all links have ended.

        :param timeout: seconds.
        :return: whether they have.
        """
        return self._ended.wait(lambda: not self._links, timeout)

    # Links.

    def _accept(self, listener: Listener, hello: Callable[[], Mapping[str, Any]]) -> None:
        while not listener.closed:
            self._accept_one(listener, hello)

    def _accept_one(self, listener: Listener, hello: Callable[[], Mapping[str, Any]]) -> None:
        try:
            link = accept_link(listener)
        except PeerRefused as error:
            self._log(str(error.strerror))
        except OSError as error:
            if not listener.closed:
                self._log(f"no link can be accepted for now: {error}")
                time.sleep(_RETRY)
        else:
            self._begin(link, hello)

    def _begin(self, link: Link, hello: Callable[[], Mapping[str, Any]]) -> None:
        why = f"this process has {self._max_links} links already" if len(self._links) >= self._max_links else ""
        if not why:
            self._links[link] = None
            try:
                threading.Thread(target=self._run, args=(link, hello), name="ssesync-link", daemon=True).start()
            except RuntimeError as error:
                del self._links[link]
                why = f"no more threads can be started: {error}"
        if why:
            refuse(link, why)
            self._log(f"process {link.pid} is refused: {why}")

    def _run(self, link: Link, hello: Callable[[], Mapping[str, Any]]) -> None:
        try:
            with link:
                greet(link, hello())
                try:
                    self.serve(link)
                except LinkError as error:
                    refuse(link, str(error))
                    raise
        except PeerRefused as error:
            self._log(str(error.strerror))
        except LinkTimeout:
            self._log(f"process {link.pid} is refused: it has sent no hello")
        except LinkLost:
            pass  # it has ended
        except LinkError as error:
            self._log(f"process {link.pid} is refused: {error}")
        except Exception:
            logger.exception("the link with process %d failed", link.pid)
        finally:
            self._links.pop(link, None)
            self._ended.wake()

    def _log(self, text: str) -> None:
        """Log a warning, but not again if it was logged a short time ago: another process may try all the time."""
        now = time.monotonic()
        self._logged = {each: at for each, at in list(self._logged.items()) if at > now - _SILENCE}
        if text not in self._logged and len(self._logged) < _LINES:
            self._logged[text] = now
            logger.warning("a link between processes: %s", escape(text))

    # Messages.

    def _serve_one(self, link: Link) -> None:
        try:
            frame = link.receive(None)
        except DescriptorsLost as error:
            self._answer_lost(link, error)
            return
        with frame:
            if frame.op == "take":
                self._take(link, frame)
            elif (answer := self._answer(link, frame)) is not None:
                link.send(answer)

    def _answer(self, link: Link, frame: Frame) -> Mapping[str, Any] | None:
        handler = self._handlers.get(frame.op)
        if handler is None:
            return {"op": "error", "why": f"there is no operation {frame.op!r}"}
        try:
            return handler(link, frame)
        except (LinkLost, LinkError):
            raise
        except Exception as error:
            logger.exception("the operation %r of a link failed", frame.op)
            return {"op": "error", "why": f"the operation failed: {error!r}"}

    def _answer_lost(self, link: Link, error: DescriptorsLost) -> None:
        """Refuse all clients of a batch that has not come as a whole."""
        clients = error.head.get("clients")
        self._log(f"clients of process {link.pid} are refused: {error}")
        if error.head["op"] != "take" or not isinstance(clients, list):
            link.send({"op": "error", "why": str(error)})
            return
        self._counters.add("refused", len(clients))
        link.send(
            {"op": "taken", "refused": dict.fromkeys(range(len(clients)), str(error)), "most": error.arrived // 2}
        )

    def _take(self, link: Link, frame: Frame) -> None:
        with Batch(frame, link.pidfd) as batch:
            epoch, refusing = batch.since.epoch, self.refusing
            broker = None if refusing else self._broker_of(epoch)
            batch.prepare(broker, refusing or f"this process has not opened the log {epoch}")
            self._counters.add("refused", len(batch.refused))
            try:
                batch.acknowledge(link)
            finally:
                self._counters.add("taken", batch.taken)
                self._counters.add("recovered", batch.recovered)

    def _broker_of(self, epoch: str) -> Broker | None:
        return next((broker for broker in self._brokers() if epoch in epochs((broker,))), None)


def epochs(brokers: Iterable[Broker]) -> list[str]:
    """Find the logs that brokers have opened. This may ask a database.

    :param brokers: the brokers.
    :return: the epochs of the logs that other processes can open, without those that can't be reached now.
    """
    found = []
    for broker in brokers:
        with contextlib.suppress(BrokerError):
            if broker.is_shared:
                found.append(broker.dispatcher.epoch or broker.position().rpartition("-")[0])
    return found
