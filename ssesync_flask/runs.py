"""Runs: streams that are produced once, in the background, and followed by any number of clients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from flask import Flask, abort, request
from werkzeug.exceptions import default_exceptions

from ssesync import Broker, BrokerError, Run, Settings, Subscription
from ssesync.options import FollowOptions, RunViewOptions, StartOptions, check_names

from .response import EventStreamResponse, after_step, allow_other_origins, unavailable
from .state import State, encoder_of, take_settings

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["RunMethods"]

# Options of a subscription, and of a run, that are none of the stream's.
_SUBSCRIPTION = Broker.POLICY | {"envelope", "last_event_id"}
_OWN = (Broker.RUN_OPTIONS | {"restart"}) - {"settings"}


class RunMethods:
    """The part of the extension that starts, follows and stops runs. See :class:`ssesync.Run`.

    POST starts and stops, GET follows: so a page whose ``EventSource`` reconnects can't start anything.
    """

    def run(
        self,
        name: str,
        producer: Any,
        *args: Any,
        subject: str,
        fingerprint: str = "",
        **options: Unpack[RunViewOptions],
    ) -> EventStreamResponse:
        """Start a run, or join it, and answer the current request with its events from the start.

        ::

            @app.post("/answers/<id>")
            def answer(id):
                return sse.run(f"answer:{id}", generate, request.form["prompt"], subject=current_user.get_id())

        A request that has a last event ID (``Last-Event-ID`` or ``?lastEventId=``) never starts a producer, nor does
        one whose method is HEAD or OPTIONS: if the run is unknown or has expired, the response is 404.

        :param name: see :meth:`start_run`.
        :param producer: see :meth:`start_run`.
        :param args: see :meth:`start_run`.
        :param subject: see :meth:`start_run`.
        :param fingerprint: see :meth:`start_run`.
        :param options: those of :meth:`start_run` and of :meth:`follow_run`.
        :return: the response.
        :raises TypeError: the subject is no text: perhaps nobody is logged in.
        :raises werkzeug.exceptions.HTTPException: as for :meth:`start_run`.
        """
        check_names(RunMethods.run, options.keys(), RunViewOptions)
        rest = cast("dict[str, Any]", options)
        _, state = self._state()
        rest["settings"] = take_settings(state.settings, rest)
        mine = {each: rest.pop(each) for each in _OWN & rest.keys()}
        start = functools.partial(
            self._start, name, producer, *args, subject=subject, fingerprint=fingerprint, settings=rest["settings"],
            **mine,
        )  # fmt: skip
        return self._answer_run(name, subject=subject, start=start, **rest)

    def start_run(
        self, name: str, producer: Any, *args: Any, subject: str, fingerprint: str = "", **options: Unpack[StartOptions]
    ) -> Run:
        """Start a run, or join the one of this name. See :meth:`ssesync.Broker.start_run`.

        The producer runs with the application's context, without a request; the application's JSON provider encodes
        what it gives.

        :param name: the run's name.
        :param producer: a generator function, a :class:`ssesync.Relay`, or with ``writer=True`` a function that is
            given a :class:`ssesync.Writer` first.
        :param args: the function's arguments: what it needs of the request.
        :param subject: whose run it is: a user's id, as text. ``""``: of any client that knows the name.
        :param fingerprint: of what it is started with. A start with another one is a conflict.
        :param options: see :class:`ssesync.channels.runs.options.RunOptions`; and ``restart``.
        :return: the run.
        :raises TypeError: the subject is no text, as perhaps nobody is logged in; or the producer can't be one.
        :raises werkzeug.exceptions.Conflict: there is such a run with another fingerprint: 409.
        :raises werkzeug.exceptions.NotFound: it is another subject's, or no run can have this name: 404.
        :raises werkzeug.exceptions.ServiceUnavailable: there are too many runs, or the broker can't be reached: 503.
        """
        check_names(RunMethods.start_run, options.keys(), StartOptions)
        _, state = self._state()
        allow_other_origins(state.settings)
        try:
            return self._start(name, producer, *args, subject=subject, fingerprint=fingerprint, **options)
        except BrokerError as error:
            raise error_for(error, state.settings) from error

    def follow_run(
        self,
        name: str,
        *,
        subject: str | None = None,
        authorize: Callable[[Run], object] | None = None,
        **options: Unpack[FollowOptions],
    ) -> EventStreamResponse:
        """Answer the current request with the events of a run: from its start, or after the client's last event ID, to
        its final event.

        :param name: the run's name.
        :param subject: whose run it must be.
        :param authorize: called with the :class:`ssesync.Run` where there is no ``subject``; returns whether this
            client may follow it. If it is false the response is 404.
        :param options: those of :meth:`SSE.subscribe` that are for the client: ``key``, by default the subject,
            ``envelope``, ``last_event_id``, ``headers``, the policy, and the options of :class:`EventStreamResponse`.
        :return: the response. 204 if the client has the final event already.
        :raises TypeError: neither ``subject`` nor ``authorize`` is given.
        :raises werkzeug.exceptions.NotFound: there is no such run for this client.
        """
        check_names(RunMethods.follow_run, options.keys(), FollowOptions)
        return self._answer_run(name, subject=subject, authorize=authorize, **options)

    def stop_run(self, name: str, *, subject: str) -> bool:
        """Stop a run, in whatever process it is produced. See :meth:`ssesync.Broker.stop_run`.

        :param name: the run's name.
        :param subject: whose run it must be. If the view has checked the right by itself, it can call
            ``sse.broker.stop_run(name, subject=None)``.
        :return: whether this has ended it; else it had ended before.
        :raises TypeError: the subject is no text: perhaps nobody is logged in.
        :raises werkzeug.exceptions.NotFound: there is no such run for this client.
        :raises werkzeug.exceptions.ServiceUnavailable: the broker can't be reached.
        """
        if subject is None:  # for the broker this is anybody's run; here it is an anonymous user's id
            raise TypeError(f"stop_run takes the subject of the run {name!r}, got None: is the user logged in?")
        _, state = self._state()
        allow_other_origins(state.settings)
        try:
            return state.broker.stop_run(name, subject=subject)
        except BrokerError as error:
            raise error_for(error, state.settings) from error

    def _start(self, name: str, producer: Any, *args: Any, **options: Any) -> Run:
        app, state = self._state()
        options.setdefault("settings", state.settings)
        options.setdefault("dumps", encoder_of(app))
        options.setdefault("scope", app.app_context)
        options.setdefault("after_step", after_step(app, options))
        return state.broker.start_run(name, producer, *args, **options)

    def _answer_run(
        self,
        name: str,
        *,
        subject: str | None,
        key: str | None = None,
        start: Callable[[], Run] | None = None,
        authorize: Callable[[Run], object] | None = None,
        **options: Any,
    ) -> EventStreamResponse:
        _, state = self._state()
        policy = {each: options.pop(each) for each in _SUBSCRIPTION & options.keys()}
        settings = take_settings(state.settings, options)
        allow_other_origins(settings)
        key = key or subject or None
        state.broker.warn_once(request.environ)

        def respond(subscription: Subscription) -> EventStreamResponse:
            return EventStreamResponse(subscription, settings=settings, key=key, **options)

        def refuse(status: int, error: Exception | None) -> EventStreamResponse:
            return unavailable(settings, error) if error is not None and status == 503 else abort(status)

        response: EventStreamResponse = state.broker.answer_run(
            request.environ, name, subject=subject, start=start, authorize=authorize, respond=respond, refuse=refuse,
            key=key, **policy,
        )  # fmt: skip
        return response

    def _state(self) -> tuple[Flask, State]:
        """The application and its state."""
        raise NotImplementedError


def error_for(error: BrokerError, settings: Settings) -> Exception:
    """Choose what to raise where a run could not be started or stopped.

    :param error: the broker's error.
    :param settings: the application's.
    :return: the framework's exception.
    :raises ssesync.BrokerError: the error, if a client should not know of it.
    :raises werkzeug.exceptions.ServiceUnavailable: with the time after which to try again.
    """
    status = Broker.status_of(error)
    if status == 503:
        unavailable(settings.replace(refusal="503"), error)  # raises
    return default_exceptions[status]()
