"""A broker's methods for runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from ...errors import BrokerError, excerpt
from ...validation import check_number
from ..backend import Backend
from ..reentry import entered
from .answer import answer_run, status_of
from .options import RunOptions, options_of
from .record import RunRecord
from .request import request_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..keywords import RunKeywords
    from .run import Run
    from .runs import Runs

__all__ = ["RunMethods"]


class RunMethods(Backend):
    """The part of a broker that starts, finds and stops runs. See :class:`ssesync.Run`."""

    #: The names of what :meth:`start_run` takes as ``options``, for an integration that takes it among other options.
    RUN_OPTIONS = frozenset(RunOptions.__dataclass_fields__)
    #: Called with the record of a run that was interrupted; a forked child has the same.
    when_interrupted: Callable[[RunRecord], object] | None = None
    _runs: Runs | None = None

    @property
    def runs(self) -> Runs:
        """The runs of this process. Made when there is one: most processes have none."""
        if self._runs is None:
            from .runs import Runs

            with entered(), self._lock:
                self._runs = self._runs or Runs(self)  # type: ignore[arg-type]
        return self._runs

    def start_run(
        self,
        name: str,
        producer: Any,
        *args: Any,
        subject: str = "",
        fingerprint: str = "",
        restart: bool = False,
        **options: Unpack[RunKeywords],
    ) -> Run:
        """Start a run in this process, or join the one of this name, in whichever process it runs or has ended.

        A start is safe to be repeated: of any number of starts in any processes one starts the producer. The others
        join: they get the same run.

        :param name: the run's name, which is that of its channel: a conversation's message, a job.
        :param producer: a function that is called with ``args`` on a thread of its own and returns an iterable of
            events, such as a generator function, or a :class:`ssesync.Relay`; with ``writer=True`` one that is given a
            :class:`ssesync.Writer` before ``args``; or an iterable or a relay itself. It is not run with the context of
            the caller's request.
        :param args: its arguments.
        :param subject: whose run it is, a user's name for one. For others there is no such run.
        :param fingerprint: of what it is started with, a digest of the question for one. A start with another one does
            not join.
        :param restart: start it anew if the run of this name has ended. Its events are removed. A client that
            has some of them gets a ``reset`` event and all of the new run.
        :param options: see :class:`ssesync.channels.runs.options.RunOptions`: ``writer``, ``max_events``,
            ``max_bytes``, ``max_seconds``, ``max_per_subject``, ``retain``, ``merge``, ``numbered``, ``end_type``,
            ``dumps``, ``scope``, ``after_step`` and ``settings``.
        :return: the run.
        :raises BrokerError: the log can't be reached or used.
        :raises ChannelError: no run can have this name, or there is a channel of this name that is no run's.
        :raises RunConflict: the run of this name was started with another fingerprint.
        :raises RunRefused: this process or this subject has too many runs, or the process is stopping.
        :raises RunUnknown: the run of this name is another subject's.
        :raises SettingsError: an option that does not exist or can't work.
        :raises TypeError: the producer gives no events, or is asynchronous.
        """
        request = request_of(name, subject, fingerprint, restart=restart)
        return self.runs.start(request, producer, args, options_of(cast("dict[str, Any]", options)))

    def queue_run(
        self,
        name: str,
        *,
        subject: str = "",
        fingerprint: str = "",
        wait: float = 3600.0,
        restart: bool = False,
        **options: Unpack[RunKeywords],
    ) -> Run:
        """Add a run that a process begins later, by :meth:`open_run`: a task queue's worker, for one. Clients can
        follow it at once. Where there is a run of this name it is joined, as by :meth:`start_run`.

        :param name: the run's name.
        :param subject: whose run it is.
        :param fingerprint: of what it is started with.
        :param wait: seconds after which it ends as interrupted if no process has begun it.
        :param restart: add it anew if the run of this name has ended.
        :param options: ``max_per_subject``, ``retain`` and ``end_type``, as for :meth:`start_run`.
        :return: the run.
        :raises BrokerError: as for :meth:`start_run`.
        """
        check_number("wait", wait, above=0)
        request = request_of(name, subject, fingerprint, restart=restart)
        return self.runs.queue(request, wait, options_of(cast("dict[str, Any]", options)))

    def open_run(
        self,
        name: str,
        *,
        subject: str | None = None,
        fingerprint: str | None = None,
        restart: bool = False,
        **options: Unpack[RunKeywords],
    ) -> Run:
        """Produce a run on this thread: begin the one that was queued, or add it.

        ::

            with broker.open_run("job:7") as run:
                run.write({"percent": 50})

        The end of the block is that of the run: it is done, or has failed if there was an exception. If the run is
        stopped, the next write raises :class:`StreamClosed`, which ends the block without an error.

        :param name: the run's name.
        :param subject: the user that it belongs to; ``None``: that of the queued run, or none.
        :param fingerprint: of what it is started with; ``None``: anything.
        :param restart: begin it anew if the run of this name has ended: a task that is delivered again may do so.
        :param options: as for :meth:`start_run`. Of a run that was queued, ``retain`` and ``end_type`` are those that
            were given then.
        :return: the run, to be used in a ``with`` block.
        :raises BrokerError: as for :meth:`start_run`.
        :raises RunConflict: there is a run of this name that is running or has ended.
        """
        request = request_of(name, subject, fingerprint, optional=True, restart=restart)
        return self.runs.open(request, options_of(cast("dict[str, Any]", options)))

    def get_run(self, name: str, *, subject: str | None = "") -> Run:
        """Find a run.

        :param name: the run's name.
        :param subject: whose run it has to be; ``None``: anybody's, if the caller has checked the right by itself.
        :return: the run.
        :raises BrokerError: the broker can't be asked.
        :raises RunUnknown: there is none, or it is another subject's, or its time to be retained is over.
        """
        return self.runs.get(request_of(name, subject, optional=True))

    def stop_run(self, name: str, *, subject: str | None = "") -> bool:
        """Stop a run, whichever process produces it: it has ended when this returns, and its followers have been sent
        the final event. Its producer is cancelled at its next step, as one whose client has disconnected.

        :param name: the run's name.
        :param subject: as for :meth:`get_run`.
        :return: whether this call has ended it: else it had ended before.
        :raises BrokerError: the broker can't be reached.
        :raises RunUnknown: as for :meth:`get_run`.
        """
        return self.get_run(name, subject=subject).stop()

    def answer_run(
        self,
        environ: Mapping[str, Any],
        name: str,
        *,
        subject: str | None,
        start: Callable[[], Run] | None = None,
        **arguments: Any,
    ) -> Any:
        """Answer a request with the stream of a run, for the integration of a web framework.

        A request that has a last event ID never starts a producer: its client's connection broke, and the run that it
        follows may have expired. Nor does one whose method is HEAD or OPTIONS.

        :param environ: the request's WSGI environ.
        :param name: the run's name.
        :param subject: whose run it has to be; ``None``: ``authorize`` decides alone.
        :param start: starts or joins the run; ``None``: the request only follows.
        :param arguments: ``respond``, a function that makes the framework's response of the
            :class:`ssesync.Subscription`; ``refuse``, one that makes the response for a status (404, 409 or 503) and
            the error, if there is one, or raises; ``authorize``, a function of the run; ``last_event_id``, where to
            begin if the client sends no id; and the options of the subscription.
        :return: what ``respond`` or ``refuse`` has returned.
        :raises TypeError: there is no subject, as perhaps nobody is logged in, and a run would be started, or there is
            no ``authorize``.
        """
        if subject is None and (start is not None or arguments.get("authorize") is None):
            raise TypeError(
                f"the run {excerpt(name)} needs subject=, whose run it must be, got None; to follow it, "
                "authorize=, a function of the run, suffices"
            )

        def find() -> Run:
            return self.get_run(name, subject=subject)

        return answer_run(environ, start=start or find, find=find, **arguments)

    @staticmethod
    def status_of(error: BrokerError) -> int:
        """Choose the status of the response to a request that starts or stops a run, for the integration of a web
        framework: 404 for an unknown run, 409 for a conflict, 503 for what may work later. That is logged.

        :param error: what was raised.
        :return: the status.
        :raises BrokerError: the error, if a client should not know of it.
        """
        return status_of(error)

    def on_interrupted(self, function: Callable[[RunRecord], object]) -> Callable[[RunRecord], object]:
        """Have a function called for runs that were interrupted, as their process has ended: to start them again.

        ::

            @broker.on_interrupted
            def again(run):
                broker.start_run(run.name, generate, run.name, subject=run.subject, restart=True)

        Set it in each process, where the application is made. Of the processes that have runs or followers, one calls
        it, once for each run: on a thread of the library's, with the run's record.

        :param function: the function.
        :return: the function.
        """
        self.when_interrupted = function
        return function
