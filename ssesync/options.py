"""The options of public functions: their names and types, for type checkers; and the check of the names.

Each set is a ``TypedDict``: a function of yours that passes options on may take ``**options: Unpack[ViewOptions]``. The
class that checks an option's value documents it: :class:`ssesync.Settings`, :class:`ssesync.EventStream`,
:class:`ssesync.channels.policy.Policy` or :class:`ssesync.channels.runs.options.RunOptions`.
"""

from __future__ import annotations

from .channels.keywords import (
    FollowerOptions,
    FollowOptions,
    RunKeywords,
    RunViewOptions,
    StartOptions,
    SubscribeOptions,
)
from .channels.policy import PolicyOptions
from .client.options import RelayOptions, RequestOptions
from .server.options import EventStreamOptions, ResponseOptions, StreamOptions, ViewOptions
from .settings import SettingsOptions
from .validation import check_names

__all__ = [
    "EventStreamOptions",
    "FollowOptions",
    "FollowerOptions",
    "PolicyOptions",
    "RelayOptions",
    "RequestOptions",
    "ResponseOptions",
    "RunKeywords",
    "RunViewOptions",
    "SettingsOptions",
    "StartOptions",
    "StreamOptions",
    "SubscribeOptions",
    "ViewOptions",
    "check_names",
]
