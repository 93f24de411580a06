"""Views for the Django skin's tests."""

from __future__ import annotations

import datetime
import decimal
import threading
import uuid
from collections.abc import Iterator
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import path, reverse, set_script_prefix
from django.utils import timezone, translation
from django.utils.decorators import method_decorator
from django.utils.translation import get_language, gettext_lazy
from django.views import View
from django.views.decorators.http import require_safe
from rest_framework.exceptions import NotAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.views import APIView

from ssesync import Event, EventStream, Writer
from ssesync_django import EventStreamResponse, event_stream, event_writer
from ssesync_django.drf import EventStreamRenderer

ran: list[str] = []


@require_safe
@event_stream
def count(request: HttpRequest, n: int) -> Iterator[Any]:
    ran.append("count")
    for number in range(n):
        yield Event(request.path, id=number)


@event_writer
def job(request: HttpRequest, w: Writer, job_id: str) -> None:
    w.write_event(job_id, type=request.method, id=w.last_event_id)
    w.finish()


class ClassView(View):
    @event_stream(retry=5)
    def get(self, request: HttpRequest, name: str) -> Iterator[Any]:
        yield f"{request.method} {name}"

    @event_writer(retry=6)
    def post(self, request: HttpRequest, w: Writer, name: str) -> None:
        w.write(f"{request.method} {name}")


@method_decorator(event_stream, name="get")
class DecoratedView(View):
    def get(self, request: HttpRequest) -> Iterator[Any]:
        yield "decorated"


@event_stream
def raises(request: HttpRequest, what: str) -> Iterator[Any]:
    if what == "missing":
        raise Http404
    if what == "forbidden":
        raise PermissionDenied
    yield "x"
    raise ValueError("secret")


@event_stream
def returns(request: HttpRequest, what: str) -> Any:
    if what == "login":
        return HttpResponseRedirect("/elsewhere")
    return (item for item in [what])


@event_stream(finished=lambda last_event_id: last_event_id == "9")
def finished(request: HttpRequest) -> Iterator[str]:
    ran.append("finished")
    yield "x"


@event_stream
def values(request: HttpRequest) -> Iterator[Any]:
    yield {"at": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)}
    yield decimal.Decimal("1.5")
    yield uuid.UUID(int=0)
    yield gettext_lazy("text")


@event_stream
def nan(request: HttpRequest) -> Iterator[Any]:
    yield {"a": float("nan")}


@event_stream
def database(request: HttpRequest) -> Iterator[Any]:
    yield {"users": User.objects.count(), "thread": threading.get_ident()}
    User.objects.create(username="made by the view")
    yield {"users": User.objects.count()}


@event_writer
def database_writer(request: HttpRequest, w: Writer) -> None:
    User.objects.create(username="made by the writer")
    w.write({"users": User.objects.count(), "thread": threading.get_ident()})


def own_response(request: HttpRequest) -> HttpResponseBase:
    response = EventStreamResponse(["a"], headers={"X-A": "1"}, retry=5)
    response.set_cookie("seen", "yes")
    request.session["stored"] = 1
    return response


def own_stream(request: HttpRequest) -> HttpResponseBase:
    with_options = request.GET.get("options")
    stream = EventStream(["a"], retry=5)
    return EventStreamResponse(stream, request=request, **({"padding": 1} if with_options else {}))


def language(request: HttpRequest) -> HttpResponseBase:
    def produce() -> Iterator[Any]:
        yield {"language": get_language(), "zone": timezone.get_current_timezone_name(), "url": reverse("language")}

    set_script_prefix("/mounted/")
    with translation.override("de"), timezone.override("Asia/Kolkata"):
        return EventStreamResponse(produce, request=request, threaded=True, first_event_timeout=30)


class APIStream(APIView):
    renderer_classes = (EventStreamRenderer, JSONRenderer)

    @event_stream
    def get(self, request: Any) -> Iterator[Any]:
        if "forbidden" in request.query_params:
            raise NotAuthenticated
        yield request.query_params.get("q")


urlpatterns = [
    path("count/<int:n>", count),
    path("job/<job_id>", job),
    path("class/<name>", ClassView.as_view()),
    path("decorated", DecoratedView.as_view()),
    path("raises/<what>", raises),
    path("returns/<what>", returns),
    path("finished", finished),
    path("values", values),
    path("nan", nan),
    path("database", database),
    path("database/writer", database_writer),
    path("own/response", own_response),
    path("own/stream", own_stream),
    path("language", language, name="language"),
    path("api", APIStream.as_view()),
]
