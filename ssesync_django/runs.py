"""Runs: streams that are produced once, in the background, and followed by any number of clients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest

from ssesync import Broker, Run, RunUnknown, Settings, Subscription
from ssesync.options import FollowOptions, RunViewOptions, StartOptions, check_names

from .apps import app_settings
from .channels import get_broker
from .encoder import dump_json
from .keys import key_of, own_key
from .response import EventStreamResponse, Scope, refusal, release_and_warn, runs_event_loop, unavailable

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["follow_run", "run", "start_run", "stop_run"]

# Options of a subscription, and of a run, that are none of the stream's.
_SUBSCRIPTION = Broker.POLICY | {"envelope"}
_OWN = (Broker.RUN_OPTIONS | {"restart"}) - {"settings"}
_REFUSALS = {404: ("404 Not Found", "no such run"), 409: ("409 Conflict", "started with something else")}


def run(
    request: HttpRequest | Any,
    name: str,
    producer: Any,
    *args: Any,
    subject: Any = None,
    fingerprint: str = "",
    **options: Unpack[RunViewOptions],
) -> EventStreamResponse:
    """Start a run, or join it, and answer the request with its events from the start.

    ::

        def answer(request, pk):
            return run(request, f"answer:{pk}", generate, request.POST["prompt"])

    A request that has a last event ID (``Last-Event-ID`` or ``?lastEventId=``) never starts a producer, nor does one
    whose method is HEAD or OPTIONS: if the run is unknown or has expired, the response is 404. It is 409 if the run was
    started with another fingerprint. POST starts and stops, GET follows: so a page whose ``EventSource`` reconnects
    can't start anything.

    :param request: the request, Django's or that of REST framework.
    :param name: see :func:`start_run`.
    :param producer: see :func:`start_run`.
    :param args: see :func:`start_run`.
    :param subject: see :func:`start_run`.
    :param fingerprint: see :func:`start_run`.
    :param options: those of :func:`start_run` and of :func:`follow_run`.
    :return: the response.
    :raises django.core.exceptions.PermissionDenied: see :func:`start_run`.
    """
    check_names(run, options.keys(), RunViewOptions)
    rest = cast("dict[str, Any]", options)
    subject = _subject(request, subject)
    mine = {each: rest.pop(each) for each in _OWN & rest.keys()}
    if "settings" in rest:
        mine["settings"] = rest["settings"]
    start = functools.partial(_start, name, producer, *args, subject=subject, fingerprint=fingerprint, **mine)
    return _answer(request, name, subject=subject, start=start, **rest)


def start_run(
    request: HttpRequest | Any,
    name: str,
    producer: Any,
    *args: Any,
    subject: Any = None,
    fingerprint: str = "",
    **options: Unpack[StartOptions],
) -> Run:
    """Start a run, or join the one of this name. See :meth:`ssesync.Broker.start_run`.

    The producer runs on a thread of its own with the request's language and time zone, and with database connections of
    its own, which are closed at its end. It does not see what the request's transaction has not committed: under
    ``ATOMIC_REQUESTS`` start it with ``transaction.on_commit``. In an asynchronous view call this with
    ``sync_to_async``.

    :param request: the request, Django's or that of REST framework.
    :param name: the run's name.
    :param producer: a generator function, a :class:`ssesync.Relay`, or with ``writer=True`` a function that is given a
        :class:`ssesync.Writer` first.
    :param args: the function's arguments: what it needs of the request.
    :param subject: whose run it is: a user or text. By default the logged-in user; ``""``: of any client that
        knows the name.
    :param fingerprint: of what it is started with. A start with another one is a conflict.
    :param options: see :class:`ssesync.channels.runs.options.RunOptions`; and ``restart``.
    :return: the run.
    :raises django.core.exceptions.PermissionDenied: there is no subject, as nobody is logged in: 403.
    :raises django.http.Http404: the run is another subject's.
    :raises ssesync.BrokerUnavailable: the broker can't be reached.
    :raises ssesync.ChannelError: no run can have this name.
    :raises ssesync.RunConflict: there is such a run with another fingerprint.
    :raises ssesync.RunRefused: there are too many runs.
    """
    check_names(start_run, options.keys(), StartOptions)
    try:
        return _start(
            name, producer, *args, subject=_subject(request, subject), fingerprint=fingerprint, **options
        )  # fmt: skip
    except RunUnknown as error:
        raise Http404(str(error)) from error


def follow_run(
    request: HttpRequest | Any,
    name: str,
    *,
    subject: Any = None,
    authorize: Callable[[Any, Run], object] | None = None,
    **options: Unpack[FollowOptions],
) -> EventStreamResponse:
    """Answer a request with the events of a run: from its start, or after the client's last event ID, to its final
    event.

    :param request: the request, Django's or that of REST framework.
    :param name: the run's name.
    :param subject: whose run it must be; by default, and without ``authorize``, the logged-in user's.
    :param authorize: called with the request and the :class:`ssesync.Run`; returns whether this client may follow it.
        If it is false the response is 404.
    :param options: those of :func:`subscribe` that are for the client: ``key``, by default the subject, ``headers``,
        ``envelope``, the policy, and the options of :class:`ssesync.EventStream`.
    :return: the response: 404 if there is no such run for this client, 204 if the client has the final event already.
    :raises django.core.exceptions.PermissionDenied: there is no subject, as nobody is logged in: 403.
    """
    check_names(follow_run, options.keys(), FollowOptions)
    if subject is not None or authorize is None:
        subject = _subject(request, subject)
    checks = None if authorize is None else functools.partial(authorize, request)
    return _answer(request, name, subject=subject, authorize=checks, **options)


def stop_run(request: HttpRequest | Any, name: str, *, subject: Any = None) -> bool:
    """Stop a run, in whatever process it is produced. See :meth:`ssesync.Broker.stop_run`.

    :param request: the request, Django's or that of REST framework.
    :param name: the run's name.
    :param subject: whose run it must be; by default the logged-in user's.
    :return: whether this has ended it; else it had ended before.
    :raises django.core.exceptions.PermissionDenied: there is no subject, as nobody is logged in: 403.
    :raises django.http.Http404: there is no such run for this client.
    :raises ssesync.BrokerUnavailable: the broker can't be reached.
    """
    try:
        return get_broker().stop_run(name, subject=_subject(request, subject))
    except RunUnknown as error:
        raise Http404(str(error)) from error


def _subject(request: Any, subject: Any) -> str:
    found = own_key(request) if subject is None else key_of(subject)
    if found is None:
        raise PermissionDenied("a run has a subject: nobody is logged in, and subject= is not given")
    return found


def _start(name: str, producer: Any, *args: Any, **options: Any) -> Run:
    settings: Settings = options.setdefault("settings", app_settings())
    options.setdefault("dumps", dump_json)
    options.setdefault("scope", Scope())
    options.setdefault("after_step", release_and_warn if settings.release_db == "step" else None)
    return get_broker().start_run(name, producer, *args, **options)


def _answer(
    request: Any,
    name: str,
    *,
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    key: Any = None,
    **options: Any,
) -> EventStreamResponse:
    plain: HttpRequest = getattr(request, "_request", request)  # REST framework's wraps Django's
    arguments = {
        each: options.pop(each) for each in ("subject", "start", "authorize", "last_event_id") if each in options
    }
    policy = {each: options.pop(each) for each in _SUBSCRIPTION & options.keys()}
    key = arguments["subject"] or None if key is None else key_of(key)
    if key is not None:
        options.setdefault("key", key)

    def respond(subscription: Subscription) -> EventStreamResponse:
        return EventStreamResponse(subscription, request=plain, headers=headers, **options)

    def refuse(status: int, error: Exception | None) -> EventStreamResponse:
        return unavailable(plain, options) if status == 503 else refusal(plain, *_REFUSALS[status], options)

    broker = get_broker()
    broker.warn_once(plain.META)

    def answering() -> EventStreamResponse:
        response: EventStreamResponse = broker.answer_run(
            plain.META, name, respond=respond, refuse=refuse, key=key, **arguments, **policy
        )
        return response

    return EventStreamResponse.later(answering) if runs_event_loop() else answering()
