"""The extension object: an application's settings, its broker, and publish and subscribe on it."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flask import Blueprint, Flask, abort, current_app, has_app_context, request
from flask.wrappers import Request

import ssesync
from ssesync import Broker, Settings, Subscription, Ticket
from ssesync.options import SubscribeOptions, check_names

from .commands import sse_group
from .response import EventStreamResponse, allow_other_origins, unavailable
from .runs import RunMethods
from .state import State, bind, encoder_of, state_of, state_of_current_app, take_settings
from .tickets import redeem, tickets_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ssesync.options import SettingsOptions

__all__ = ["SSE"]

# The module for pages. Flask's own static files are served in the same way, with an ETag and SEND_FILE_MAX_AGE_DEFAULT.
_STATIC = Path(ssesync.__file__).parent / "static"


class SSE(RunMethods):
    """Binds an application's settings and its broker: ``SSE(app)``, or ``sse = SSE()`` and ``sse.init_app(app)`` in a
    factory.

    Settings come from ``app.config["SSESYNC"]``, a mapping of :class:`ssesync.Settings`' options; those given here
    are the defaults. Without the extension the views read the same mapping, when first used.

    The broker is ``app.config["SSESYNC_BROKER"]``, else ``broker``, else ``"memory://"``: a URL (see
    :func:`ssesync.open_broker`), of which each application gets a broker of its own, or a :class:`ssesync.Broker`.
    Nothing is connected, opened or started before its first use, so it may be bound before the server forks.

    The application gets a route for the browser module, ``url_for("ssesync.static", filename="ssesync.js")``.

    ``app.config["SSESYNC_KEEPER"]`` names the socket of a keeper, which holds the clients of channels while workers are
    replaced (see :attr:`ssesync.Broker.keeper`); without it the environment variable of the same name does.

    :raises ssesync.SettingsError: an unknown option or a value that can't work, when the application is bound.
    """

    def __init__(
        self, app: Flask | None = None, *, broker: str | Broker | None = None, **defaults: Unpack[SettingsOptions]
    ) -> None:
        self._defaults = Settings.from_mapping(defaults)
        self._broker = broker
        self._apps: weakref.WeakSet[Flask] = weakref.WeakSet()
        self._only: Flask | None = None
        self._several = False
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the application's configuration, so that a mistake in it is found when the application starts.

        :param app: the application.
        :raises ssesync.SettingsError: the configuration has a mistake.
        """
        bind(app, self._defaults, self._broker)
        if "ssesync" not in app.blueprints:
            blueprint = Blueprint("ssesync", __name__, static_folder=_STATIC, static_url_path="/ssesync")
            app.register_blueprint(blueprint)
            app.cli.add_command(sse_group)
        # Collected applications count too: a test that makes one must not depend on the garbage collector.
        self._only = app if self._only in (app, None) and not self._several else None
        self._several = self._only is None
        self._apps.add(app)

    @property
    def settings(self) -> Settings:
        """The current application's settings.

        :raises RuntimeError: there is no application context.
        """
        return state_of_current_app().settings

    @property
    def broker(self) -> Broker:
        """The application's broker: the current one's or, without a context, that of the only one that was bound.

        :raises RuntimeError: it is not clear which application is meant.
        """
        return self._state()[1].broker

    def publish(
        self,
        channel: str,
        event: Any,
        *,
        type: str | None = None,
        final: bool = False,
        dumps: Callable[[Any], str | bytes] | None = None,
    ) -> str:
        """Publish an event to a channel. See :meth:`ssesync.Broker.publish` for its errors.

        The application's JSON provider encodes it. No application context is needed if only one application was bound.
        Inside a database transaction, publish after the commit: clients that get the event earlier read the old rows.

        :param channel: the channel.
        :param event: an :class:`ssesync.Event` without an id, text, or a value that the JSON provider encodes.
        :param type: the event's type, if ``event`` is no :class:`ssesync.Event`.
        :param final: close the channel: the streams of its subscribers end after this event.
        :param dumps: another JSON encoder.
        :return: the event's id.
        """
        app, state = self._state()
        return state.broker.publish(channel, event, type=type, final=final, dumps=dumps or encoder_of(app))

    def subscribe(
        self,
        *channels: str,
        patterns: Iterable[str] = (),
        authorize: Callable[[Request, str], object] | None = None,
        on_connect: Callable[[Subscription], Iterable[Any] | None] | None = None,
        key: str | None = None,
        last_event_id: str | None = None,
        since: str | None = None,
        last: int | None = None,
        until_type: str | Iterable[str] | None = None,
        envelope: Sequence[str | bytes] | None = None,
        known: bool = False,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        **options: Unpack[SubscribeOptions],
    ) -> EventStreamResponse:
        """Answer the current request with the events that are published to these channels from now on.

        ::

            @app.get("/rooms/<room>/events")
            def events(room):
                return sse.subscribe(f"room:{room}", authorize=may_read)

        :param channels: the channels.
        :param patterns: more channels, such as ``"room:*"``. Never build one from a client's input.
        :param authorize: called with the request and each channel and pattern; returns whether this client may read
            it. If it is false the response is 403 and nothing is read, live or for replay; it may also ``abort()`` by
            itself. **Where the client chooses any part of a channel's name, check it here.** With it, the response to a
            name that no channel can have is 404.
        :param on_connect: called with the :class:`ssesync.Subscription`, within the request, when the stream begins.
            The events that it returns, if any, are sent first: the state, for example, that later events change.
            If it was called, ``on_close`` among the options is called once when the stream has ended.
        :param key: the owner of the stream, for example a user's id as text: for :meth:`revoke` and
            ``max_streams_per_key``.
        :param last_event_id: where to begin, if the client sends no id (``Last-Event-ID`` or ``?lastEventId=``):
            for example the value of ``sse.broker.position()`` that the page has.
        :param since: where a client begins that sends no id: ``"start"``, with the first event that the log has, or
            after the event of an id.
        :param last: with how many of the last events a client begins that sends no id.
        :param until_type: a type of events, or several: the stream ends after the first event of such a type, and a
            client that comes back with its id is answered 204.
        :param envelope: text around the data of each event for this client, see :meth:`ssesync.Broker.subscribe`.
        :param known: answer 404 if the log does not have one of the channels: nothing was published to it, or the
            limits have dropped it. For channels that are closed, as nothing more comes if they were dropped.
        :param headers: more response headers.
        :param options: ``overflow``, ``coalesce``, ``patience``, ``reset_event`` and ``dropped_event`` as
            :meth:`ssesync.Broker.subscribe` takes them, ``max_pending_events`` and ``max_pending_bytes``, which limit
            the queue, and the options of :class:`EventStreamResponse`.
        :return: the response.
        :raises werkzeug.exceptions.NotFound: see ``authorize`` and ``known``.
        :raises werkzeug.exceptions.Forbidden: ``authorize`` refused.
        :raises werkzeug.exceptions.ServiceUnavailable: the broker can't be reached, and the client is no browser's
            ``EventSource``, for which the setting ``refusal`` decides.
        :raises ssesync.ChannelError: no channel can have this name.
        :raises TypeError: ``authorize`` is asynchronous.

        A subscription takes no thread of its own.
        """
        check_names(SSE.subscribe, options.keys(), SubscribeOptions)
        app, state = self._state()
        current: Request = request._get_current_object()  # type: ignore[attr-defined]
        rest = cast("dict[str, Any]", options)
        policy = {name: rest.pop(name) for name in Broker.POLICY & rest.keys()}
        settings = take_settings(state.settings, rest)
        allow_other_origins(settings)
        state.broker.warn_once(current.environ)

        def refuse(status: int, error: Exception | None) -> EventStreamResponse:
            return unavailable(settings, error) if error is not None and status == 503 else abort(status)

        response: EventStreamResponse = state.broker.answer(
            current.environ,
            channels,
            options=policy,
            respond=lambda subscription: EventStreamResponse(
                subscription, settings=settings, key=key, headers=headers, **rest
            ),
            refuse=refuse,
            settings=settings,
            dumps=encoder_of(app),
            patterns=patterns,
            authorize=None if authorize is None else functools.partial(authorize, current),
            on_connect=on_connect,
            key=key,
            last_event_id=last_event_id,
            since=since,
            last=last,
            until_type=until_type,
            envelope=envelope,
            known=known,
        )
        return response

    def revoke(self, key: str, channel: str | None = None) -> None:
        """End the streams that :meth:`subscribe` made with a key, or those of them that have a channel, in all
        processes. Their clients reconnect at once, so make ``authorize`` refuse them first.

        :param key: the key.
        :param channel: end only the streams that read this channel.
        :raises ssesync.BrokerError: other processes can't be reached. In this one the streams are ended.
        """
        self.broker.revoke(key, channel)

    def issue_ticket(self, subject: str, *, channels: Collection[str] = (), seconds: float = 30) -> str:
        """Issue a ticket for one stream: text that a page adds to the URL as ``?ticket=``, if it can't send headers.

        It is signed with the application's ``SECRET_KEY``, so it can't be forged or changed, but can be read.

        :param subject: its user's id, as text.
        :param channels: the channels that it is valid for.
        :param seconds: the time for which it is valid, up to 60.
        :return: the ticket.
        :raises RuntimeError: the application has no ``SECRET_KEY``.
        """
        app, state = self._state()
        return tickets_of(app, state.broker).issue(subject, channels, seconds)

    def redeem_ticket(self) -> Ticket:
        """Redeem the current request's ticket. Each can be redeemed once, in all processes.

        ::

            @app.get("/events")
            def events():
                ticket = sse.redeem_ticket()
                return sse.subscribe(*ticket.channels, key=ticket.subject)

        :return: the ticket's subject and channels.
        :raises werkzeug.exceptions.Unauthorized: there is none, or it was used, has expired, or is not this
            application's: 401.
        """
        app, state = self._state()
        allow_other_origins(state.settings)
        # HEAD opens no stream, and does not use the ticket.
        return redeem(app, state.broker, request.args.get("ticket", ""), use=request.method != "HEAD")

    def _state(self) -> tuple[Flask, State]:
        current: Flask | None = current_app._get_current_object() if has_app_context() else None  # type: ignore[attr-defined]
        if current is not None and current in self._apps:
            return current, state_of(current)
        if self._only is not None:
            return self._only, state_of(self._only)
        if self._several:
            raise RuntimeError("several applications were bound: choose one with app.app_context()")
        raise RuntimeError("no application was bound: SSE(app), or sse.init_app(app)")
