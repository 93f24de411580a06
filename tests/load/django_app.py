"""The same for Django, under its runserver."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path

import ssesync
from ssesync_django import get_broker, subscribe

from .common import Common, noting, options_of


def events(request: HttpRequest) -> HttpResponseBase:
    key = request.GET.get("key", "")
    return subscribe(
        request,
        *request.GET.getlist("channel"),
        key=key or None,
        on_close=noting(key),
        headers={"X-Worker": str(os.getpid())},
        **options_of(request.GET.dict()),
    )


urlpatterns = [path("events", events)]

application = Common(get_wsgi_application(), get_broker)

if os.environ.get("TESTS_DRAIN"):
    ssesync.drain_on_signal()
