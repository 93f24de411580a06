"""ChannelView: channels as a class-based view."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views import View

from ssesync import Subscription

from .channels import subscribe

__all__ = ["ChannelView"]


class ChannelView(View):
    """Answers with what is published to channels, as :func:`subscribe` does.

    ::

        class RoomEvents(LoginRequiredMixin, ChannelView):
            raise_exception = True  # 403 instead of a redirect to the login page
            channels = ["room:{room}", "news"]

            def authorize(self, request, channel):
                return channel == "news" or request.user.rooms.filter(slug=self.kwargs["room"]).exists()

        path("rooms/<slug:room>/events", RoomEvents.as_view())

    Where the URL has variable parts, ``authorize`` must be there, or ``public`` must be true. Without one of them the
    view fails, for whoever asks.

    :raises django.core.exceptions.ImproperlyConfigured: neither is there.
    """

    #: The channels; ``{room}`` stands for the part of the URL of that name.
    channels: Sequence[str] = ()
    #: Patterns of channels, see :func:`subscribe`.
    patterns: Sequence[str] = ()
    #: Whether all who get as far as this view may have every channel that its URL can name.
    public: bool = False
    #: More options of :func:`subscribe`: ``{"keep_alive": 5, "overflow": "drop_oldest"}``.
    stream_options: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        """The view, for a URL configuration."""
        view = cls(**initkwargs)
        if any("{" in channel for channel in view.channels):
            view._check_authorized()
        return super().as_view(**initkwargs)

    def get_channels(self, request: HttpRequest) -> Iterable[str]:
        """The channels: ``channels``, filled in from the URL, unless this is overridden."""
        return [channel.format(*self.args, **self.kwargs) for channel in self.channels]

    def authorize(self, request: HttpRequest, channel: str) -> bool:
        """Whether this client may have a channel. Asked for each, whenever a client comes, or comes back."""
        return True

    def on_connect(self, subscription: Subscription) -> Iterable[Any] | None:
        """Called when a stream begins; the events that it begins with, if any. See :func:`subscribe`."""
        return None

    def get_key(self, request: HttpRequest) -> Any:
        """Whose stream this is, for :func:`revoke`. ``None``: the user who is logged in, if any."""
        return None

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer with the stream; also HEAD, without one."""
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
            **self.stream_options,
        )

    def _has_check(self) -> bool:
        return getattr(self.authorize, "__func__", None) is not ChannelView.authorize

    def _check_authorized(self) -> None:
        if not (self.public or self._has_check()):
            raise ImproperlyConfigured(
                f"the client chooses the channels of {type(self).__name__} by its URL: say who may have which in "
                "authorize(request, channel), or set public = True if all may have all of them"
            )
