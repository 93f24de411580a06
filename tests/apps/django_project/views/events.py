"""Subscriptions by the query."""

from __future__ import annotations

import os

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from ssesync_django import subscribe
from tests.apps.worker import noting, options_of


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
