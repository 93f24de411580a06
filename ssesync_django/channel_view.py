"""ChannelView: channels as a class-based view."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import getattr_static
from types import MappingProxyType
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.functional import cached_property
from django.views import View

from ssesync import Broker, EventStream, Subscription
from ssesync.options import SubscribeOptions

from .channels import subscribe

__all__ = ["ChannelView"]

# Options of subscribe() that are none of the stream's, nor of the policy.
_OF_SUBSCRIPTION = ("last_event_id", "since", "last", "until_type", "envelope", "known")
# Options of subscribe() for which ChannelView has no attribute of its own.
_OPTIONS = frozenset({*_OF_SUBSCRIPTION, "headers", *SubscribeOptions.__annotations__})
_MISSING: Any = object()
_PROPERTIES = (property, cached_property, functools.cached_property)


class ChannelView(View):
    """Answers with the events that are published to channels, as :func:`subscribe` does.

    ::

        class RoomEvents(LoginRequiredMixin, ChannelView):
            raise_exception = True  # 403 instead of a redirect to the login page
            channels = ["room:{room}", "news"]

            def authorize(self, request, channel):
                return channel == "news" or request.user.rooms.filter(slug=self.kwargs["room"]).exists()

        path("rooms/<slug:room>/events", RoomEvents.as_view())

    Where the URL has variable parts, the class must define ``authorize``, or ``public`` must be true. Otherwise every
    request fails.

    All other options of :func:`subscribe` may be attributes too, or properties or methods (``on_close``), and
    be given to ``as_view()``: ``reset_event = "stream-reset"``, ``headers``, ``last_event_id``, ``overflow``,
    ``keep_alive``, and so on. An attribute takes precedence over the same name in ``stream_options``. ``as_view()``
    checks all of them, except the values of properties.

    :raises django.core.exceptions.ImproperlyConfigured: neither is given.
    """

    #: The channels; ``{room}`` stands for the part of the URL of that name.
    channels: Sequence[str] = ()
    #: Patterns of channels, see :func:`subscribe`.
    patterns: Sequence[str] = ()
    #: Whether every client that reaches this view may read every channel that its URL can name.
    public: bool = False
    #: The owner of the streams, see :meth:`get_key`.
    key: Any = None
    #: More options of :func:`subscribe`: ``{"keep_alive": 5, "overflow": "drop_oldest"}``.
    stream_options: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        """The view, for a URL configuration.

        :param initkwargs: attributes of the class, or options of :func:`subscribe`.
        :return: the view.
        :raises ssesync.SettingsError: an option of the class or among these does not exist or can't work.
        :raises TypeError: there is no such attribute or option, or a method is asynchronous.
        """
        options = dict(initkwargs.pop("stream_options", cls.stream_options))
        for name in [name for name in initkwargs if getattr(cls, name, _MISSING) is _MISSING]:
            if name in _OPTIONS:
                options[name] = initkwargs.pop(name)
            elif near := difflib.get_close_matches(name, _OPTIONS, n=1):
                raise TypeError(f"as_view() of {cls.__name__} has no option {name!r}: did you mean {near[0]!r}?")
        initkwargs["stream_options"] = options
        view = cls(**initkwargs)
        view._check()
        if any("{" in channel for channel in view.channels):
            view._check_authorized()
        return super().as_view(**initkwargs)

    def get_channels(self, request: HttpRequest) -> Iterable[str]:
        """The channels. Override it for others than ``channels``, filled in from the URL.

        :param request: the request.
        :return: the channels' names.
        """
        return [channel.format(*self.args, **self.kwargs) for channel in self.channels]

    def authorize(self, request: HttpRequest, channel: str) -> bool:
        """Decide whether this client may read a channel. Called for each channel, whenever a client connects or
        reconnects.

        :param request: the request.
        :param channel: the channel, or a pattern.
        :return: whether it may.
        """
        return True

    def on_connect(self, subscription: Subscription) -> Iterable[Any] | None:
        """Called when a stream begins. See :func:`subscribe`.

        :param subscription: the subscription.
        :return: the events to send first, if any.
        """
        return None

    def get_key(self, request: HttpRequest) -> Any:
        """The owner of the stream, for :func:`revoke`. Override it for another than ``key``.

        :param request: the request.
        :return: a user or text; ``None`` for the logged-in user, if any.
        """
        return self.key

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer with the stream; HEAD is answered too, without a body.

        :param request: the request.
        :param args: positional parts of the URL.
        :param kwargs: named parts of the URL.
        :return: the response.
        """
        chosen = bool(args or kwargs)
        if chosen:
            self._check_authorized()
        return subscribe(
            request,
            *self.get_channels(request),
            patterns=self.patterns,
            authorize=self.authorize if chosen or self._has_check() else None,
            on_connect=self.on_connect,
            key=self.get_key(request),
            **self._options(),
        )

    def _options(self) -> dict[str, Any]:
        values = {name: getattr(self, name, _MISSING) for name in _OPTIONS}
        return {**self.stream_options, **{name: value for name, value in values.items() if value is not _MISSING}}

    def _check(self) -> None:
        for name in ("authorize", "on_connect", "get_channels", "get_key"):
            if inspect.iscoroutinefunction(getattr(self, name)):
                raise TypeError(
                    f"{name} of {type(self).__name__} is called synchronously: use def instead of async def"
                )
        # A property may need the request, and there is none yet.
        known = [name for name in _OPTIONS if not isinstance(getattr_static(self, name, None), _PROPERTIES)]
        options = dict(self.stream_options)
        options |= {name: value for name in known if (value := getattr(self, name, _MISSING)) is not _MISSING}
        for name in _OF_SUBSCRIPTION:
            options.pop(name, None)
        Broker.check_policy(**{name: options.pop(name) for name in Broker.POLICY & options.keys()})
        EventStream((), **options)

    def _has_check(self) -> bool:
        return getattr(self.authorize, "__func__", None) is not ChannelView.authorize

    def _check_authorized(self) -> None:
        if not (self.public or self._has_check()):
            raise ImproperlyConfigured(
                f"the client chooses the channels of {type(self).__name__} by its URL: check them in "
                "authorize(request, channel), or set public = True if every client may read all of them"
            )
