"""The URLs of all subjects."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from .views import bodies, channels, contexts, detached, events, frameworks, limited, relays, streams


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("plain")


urlpatterns = [
    path("plain", plain, name="plain"),
    path("connections", streams.connections),
    # frameworks
    path("gate", frameworks.gate),
    path("writer", frameworks.Writing.as_view()),
    path("leave", frameworks.leave),
    path("awaited", frameworks.awaited),
    path("flood", frameworks.flood),
    path("failing", frameworks.failing),
    path("forbidden", frameworks.forbidden),
    path("missing", frameworks.missing),
    path("crowd", frameworks.crowd),
    path("finished", frameworks.finished),
    path("ticks", frameworks.ticks),
    path("database", frameworks.uses_database),
    path("facts", frameworks.facts_of),
    # contexts
    path("led", contexts.lead),
    path("raising", contexts.raising),
    path("waits", contexts.waits),
    path("hold", contexts.hold),
    path("go", contexts.let_go),
    path("rows", contexts.count),
    path("session", contexts.session),
    # subscriptions
    path("events", events.events),
    path("events/<name>", detached.events),
    path("publish", detached.publish_all),
    path("ping", detached.ping),
    path("visits", detached.visits),
    path(
        "channels/",
        include(
            [
                path("events", channels.events),
                path("changed", channels.changed),
                path("awaited", channels.awaited),
                path("ticketed", channels.ticketed),
                path("act", channels.act),
                path("state", channels.state),
            ]
        ),
    ),
    # others
    path("body", bodies.body),
    path("limited", limited.stream),
    path("relay/<path>", relays.relay),
    path("stream", streams.stream),
]
