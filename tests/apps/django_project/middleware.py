"""Middleware of the settings."""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware

Answer = Callable[[HttpRequest], HttpResponseBase]


def set_cookie(get_response: Answer) -> Answer:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        response.set_cookie("visited", "yes")
        return response

    return middleware


def cors(get_response: Answer) -> Answer:
    """As django-cors-headers does it, where the query asks for it."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if "cors" in request.GET:
            response["Access-Control-Allow-Origin"] = "https://example.org"
        return response

    return middleware


def compress_on_demand(get_response: Answer) -> Answer:
    """GZipMiddleware where the query asks for it, even if the response declines it."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if "gzip" in request.GET:
            response.headers.pop("Content-Encoding", None)
            response = GZipMiddleware(get_response).process_response(request, response)  # type: ignore[arg-type]
        return response

    return middleware


def hold_transaction(get_response: Answer) -> Answer:
    """A transaction for as long as a response lasts, where the query asks for it."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if "atomic" not in request.GET:
            return get_response(request)
        block = transaction.atomic()
        block.__enter__()
        response = get_response(request)
        response._resource_closers.append(lambda: block.__exit__(None, None, None))  # type: ignore[attr-defined]
        return response

    return middleware


def set_real_address(get_response: Answer) -> Answer:
    """``REMOTE_ADDR`` set to the address that the one proxy in front has seen, where the query asks for it."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if "mended" in request.GET:
            request.META["REMOTE_ADDR"] = request.META["HTTP_X_FORWARDED_FOR"].rpartition(",")[2].strip()
        return get_response(request)

    return middleware
