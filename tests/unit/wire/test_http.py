"""The HTTP around a stream, on every kind of request that the helpers take."""

from __future__ import annotations

import logging
from wsgiref.headers import Headers
from wsgiref.util import is_hop_by_hop, setup_testing_defaults

import flask
import pytest
import requests
from django.test import RequestFactory

from ssesync.errors import EventError
from ssesync.wire import (
    MEDIA_TYPE,
    add_accept_mime,
    get_last_event_id,
    is_event_stream,
    response_headers,
    set_last_event_id,
)

from ...cases import each_case

# The answer's headers

DEFAULTS = [
    ("Content-Type", "text/event-stream; charset=utf-8"),
    ("Cache-Control", "no-cache, no-transform"),
    ("X-Accel-Buffering", "no"),
]


@each_case("extra", [None, {}, []], ids=repr)
def test_the_default_headers_are_those_of_an_event_stream(extra):
    assert response_headers(extra) == DEFAULTS


def test_the_default_headers_are_a_new_list_each_time():
    response_headers().append(("X-Other", "1"))
    assert response_headers() == DEFAULTS


@each_case("name", ["Cache-Control", "cache-control", "CACHE-CONTROL", "cAcHe-CoNtRoL"])
@each_case("form", [dict, list, iter], ids=["mapping", "pairs", "iterator"])
def test_a_header_of_the_caller_replaces_the_default_in_any_case(name, form):
    extra = {name: "private"} if form is dict else form([(name, "private")])
    headers = response_headers(extra)
    assert headers == [DEFAULTS[0], DEFAULTS[2], (name, "private")]


@each_case("name", [name for name, _ in DEFAULTS])
def test_every_default_can_be_replaced(name):
    headers = Headers(response_headers({name.upper(): "mine"}))
    assert headers.get_all(name) == ["mine"]
    assert len(headers) == 3


def test_other_headers_are_added_and_may_repeat():
    extra = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Other", "3")]
    assert response_headers(extra) == DEFAULTS + extra


@each_case(
    "name",
    [
        "Connection",
        "Keep-Alive",
        "Transfer-Encoding",
        "Upgrade",
        "TE",
        "Trailers",
        "Trailer",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "Content-Length",
    ],
)
@each_case("spelling", [str, str.lower, str.upper], ids=["usual", "lower", "upper"])
def test_what_belongs_to_the_connection_is_left_out_and_logged(name, spelling, caplog):
    with caplog.at_level(logging.DEBUG, logger="ssesync"):
        assert response_headers({spelling(name): "1", "X-Other": "2"}) == [*DEFAULTS, ("X-Other", "2")]
    (record,) = caplog.records
    assert spelling(name) in record.getMessage()
    assert record.levelno == logging.DEBUG


def test_no_header_given_to_a_server_is_one_that_wsgiref_refuses():
    extra = {"Connection": "keep-alive", "Keep-Alive": "timeout=5", "Transfer-Encoding": "chunked", "ETag": "x"}
    assert not any(is_hop_by_hop(name) for name, _ in response_headers(extra))


@each_case(
    "content_type",
    [
        "text/event-stream",
        "text/event-stream; charset=utf-8",
        "text/event-stream;charset=UTF-8",
        "text/event-stream ; charset=iso-8859-1",
        "text/event-stream;",
        "text/event-stream; a=b; c=d",
        "TEXT/EVENT-STREAM",
        "Text/Event-Stream; Charset=utf-8",
        " text/event-stream ",
        "\ttext/event-stream",
        # Fetch, "extract a MIME type": the last value that is a media type.
        "text/event-stream, text/event-stream; charset=utf-8",
        "text/html, text/event-stream",
        "text/event-stream, nonsense",
        "text/event-stream, */*",
        ", ,text/event-stream,",
        'text/event-stream; a="b, text/html"',
        'text/event-stream; a="b, text/html',
        'text/event-stream; a="\\", text/html"',
    ],
)
def test_an_event_stream_by_its_essence(content_type):
    assert is_event_stream(content_type)


@each_case(
    "content_type",
    [
        None,
        "",
        ";",
        "text/html",
        "text/event-streams",
        "text/event-stream2; charset=utf-8",
        "xtext/event-stream",
        "text/event stream",
        "application/json; profile=text/event-stream",
        "text/event-stream, text/html",
        "text/event-stream,text/html;charset=utf-8",
        'text/html; a="b, text/event-stream"',
        "text/event-stream/x",
        "/event-stream",
        "text/",
        "text/*",
        "*/*",
    ],
)
def test_no_event_stream(content_type):
    assert not is_event_stream(content_type)


# Last-Event-ID, as a server reads it. As WSGI has it, a header value is its bytes, each as one character.

app = flask.Flask(__name__)


def as_environ(value, query=""):
    environ = {"QUERY_STRING": query}
    setup_testing_defaults(environ)
    if value is not None:
        environ["HTTP_LAST_EVENT_ID"] = value
    return environ


def as_flask(value, query=""):
    headers = {} if value is None else {"Last-Event-ID": value}
    with app.test_request_context("/?" + query, headers=headers):
        return flask.request._get_current_object()


def as_django(value, query=""):
    headers = {} if value is None else {"Last-Event-ID": value}
    return RequestFactory().get("/?" + query, headers=headers)


SERVED = each_case("request_of", [as_environ, as_flask, as_django])

IDS = {
    "number": "42",
    "uuid": "0190d1f2-7d0b-7e4e-9c57-0123456789ab",
    "redis_stream": "1719830400000-0",
    "latin_1": "é",
    "cjk": "日本",
    "emoji": "😀",
    "mixed": "a é 日 😀 ÿ",
    "nel_and_ls": "a\x85\u2028b",
    "replacement": "\ufffd",
    "bom": "\ufeffa",
    "quotes_and_commas": 'a,b;"c"',
    "percent": "%41+%20",
    "longest": "x" * 4096,
}


def wire(text):
    return text.encode().decode("latin-1")


@SERVED
@each_case("text", IDS.values(), ids=IDS)
def test_the_last_event_id_is_read_as_utf8(request_of, text):
    assert get_last_event_id(request_of(wire(text))) == text


@SERVED
def test_no_last_event_id_is_the_empty_text(request_of):
    assert get_last_event_id(request_of(None)) == ""
    assert get_last_event_id(request_of("")) == ""


def test_flask_s_request_proxy_is_a_request():
    with app.test_request_context("/", headers={"Last-Event-ID": wire("é")}):
        assert get_last_event_id(flask.request) == "é"


@SERVED
@each_case(
    "query, text",
    [
        ("lastEventId=42", "42"),
        ("a=1&lastEventId=42&b=2", "42"),
        ("lastEventId=%C3%A9+%F0%9F%98%80", "é 😀"),
        ("lastEventId=1&lastEventId=2", "1"),
        ("lastEventId=", ""),
        ("lastEventId", ""),
        ("lasteventid=1", ""),
        ("lastEventId=%FF", "\ufffd"),
        ("lastEventId=a%3Db%26c", "a=b&c"),
    ],
)
def test_the_query_has_the_id_where_the_header_is_missing(request_of, query, text):
    assert get_last_event_id(request_of(None, query)) == text
    assert get_last_event_id(request_of("", query)) == text


@SERVED
def test_the_header_goes_before_the_query(request_of):
    assert get_last_event_id(request_of("7", "lastEventId=42")) == "7"


HOSTILE = {
    "lf": "a\nb",
    "cr_lf_header": "a\r\nSet-Cookie: x=1",
    "nul": "a\0b",
    "tab": "a\tb",
    "escape": "\x1b[31m",
    "unit_separator": "a\x1fb",
    "delete": "a\x7f",
    "too_long": "x" * 4097,
    "much_too_long": "x" * 1_000_000,
}


@each_case("value", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_header_counts_as_none(value):
    assert get_last_event_id(as_environ(value)) == ""
    assert get_last_event_id({"Last-Event-ID": value}) == ""


@SERVED
@each_case("query", ["lastEventId=a%0Ab", "lastEventId=%00", "lastEventId=" + "x" * 4097, "lastEventId=%7F"])
def test_a_hostile_query_counts_as_none(request_of, query):
    assert get_last_event_id(request_of(None, query)) == ""


@SERVED
def test_malformed_utf8_in_the_header_is_replaced(request_of):
    assert get_last_event_id(request_of("a\xff\xe2\x82b")) == "a\ufffd\ufffdb"


def test_a_header_that_is_no_latin_1_does_not_raise():
    assert get_last_event_id({"Last-Event-ID": "日"}) == "?"


def test_an_environ_without_a_query_is_fine():
    assert get_last_event_id({"REQUEST_METHOD": "GET"}) == ""


# Last-Event-ID, as a client sends it


def a_request():
    return requests.Request("GET", "http://localhost/")


def a_prepared_request():
    return a_request().prepare()


SENT = each_case(
    "make",
    [
        pytest.param(dict, id="dict"),
        pytest.param(lambda: requests.structures.CaseInsensitiveDict(), id="headers"),
        pytest.param(a_request, id="Request"),
        pytest.param(a_prepared_request, id="PreparedRequest"),
        pytest.param(requests.PreparedRequest, id="PreparedRequest_still_empty"),
        pytest.param(requests.Session, id="Session"),
        pytest.param(lambda: as_environ(None), id="environ"),
        pytest.param(lambda: as_flask(None), id="flask"),
        pytest.param(lambda: as_django(None), id="django"),
    ],
)


@SENT
def test_an_id_that_was_set_is_read_again(make):
    for name, text in IDS.items():
        request = make()
        set_last_event_id(request, text)
        assert get_last_event_id(request) == text, name


@SENT
def test_setting_an_id_replaces_the_one_before_and_the_empty_one_removes_it(make):
    request = make()
    set_last_event_id(request, "")
    assert get_last_event_id(request) == ""
    set_last_event_id(request, "1")
    set_last_event_id(request, "2")
    assert get_last_event_id(request) == "2"
    set_last_event_id(request, "")
    assert get_last_event_id(request) == ""
    assert "last-event-id" not in [str(name).lower() for name in getattr(request, "headers", request)]


@SENT
@each_case("text", ["a\nb", "a\rb", "\0", "a\r\nX-Forged: 1", "a\ud800"])
def test_an_id_that_no_header_carries_is_refused_and_nothing_is_set(make, text):
    request = make()
    set_last_event_id(request, "before")
    with pytest.raises(EventError, match="'id' can't be sent as Last-Event-ID") as caught:
        set_last_event_id(request, text)
    assert (caught.value.field, caught.value.value) == ("id", text)
    assert get_last_event_id(request) == "before"


def test_a_header_goes_out_as_utf8_bytes():
    request = a_request()
    set_last_event_id(request, "é😀")
    assert request.prepare().headers["Last-Event-ID"].encode("latin-1") == "é😀".encode()


def test_an_environ_keeps_the_header_where_wsgi_has_it():
    environ = as_environ(None)
    set_last_event_id(environ, "é")
    assert environ["HTTP_LAST_EVENT_ID"] == "\xc3\xa9"
    set_last_event_id(environ, "")
    assert "HTTP_LAST_EVENT_ID" not in environ


@each_case("name", ["last-event-id", "LAST-EVENT-ID", "Last-Event-Id"])
def test_a_plain_dict_has_one_header_whatever_its_case(name):
    headers = {name: "1"}
    assert get_last_event_id(headers) == "1"
    set_last_event_id(headers, "2")
    assert headers == {name: "2"}
    set_last_event_id(headers, "")
    assert headers == {}


def test_requests_takes_header_values_as_bytes_too():
    request = requests.Request("GET", "http://localhost/", headers={"Last-Event-ID": "é".encode()})
    assert get_last_event_id(request) == "é"


@pytest.mark.slow
@pytest.mark.parametrize(
    "helper", [get_last_event_id, add_accept_mime, lambda request: set_last_event_id(request, "1")]
)
@pytest.mark.parametrize(
    "request_", [None, 5, "text", object(), [("Last-Event-ID", "1")]], ids=["None", "5", "text", "object", "list"]
)
def test_what_is_no_request_is_a_type_error_that_shows_it(helper, request_):
    with pytest.raises(TypeError, match=type(request_).__name__):
        helper(request_)


# Accept


def accept_of(request):
    environ = getattr(request, "environ", getattr(request, "META", request))
    if isinstance(environ, dict) and "REQUEST_METHOD" in environ:
        return environ.get("HTTP_ACCEPT")
    return getattr(request, "headers", request).get("Accept")


@SENT
def test_accept_is_set_where_there_is_none_that_means_anything(make):
    request = make()
    add_accept_mime(request)
    assert accept_of(request) == MEDIA_TYPE
    add_accept_mime(request)
    assert accept_of(request) == MEDIA_TYPE


@each_case(
    "before, after",
    [
        ("", "text/event-stream"),
        ("*/*", "text/event-stream"),
        (" */* ", "text/event-stream"),
        ("text/html", "text/html, text/event-stream"),
        ("text/html, application/json;q=0.5", "text/html, application/json;q=0.5, text/event-stream"),
        ("text/html, */*;q=0.1", "text/html, */*;q=0.1, text/event-stream"),
        ("text/event-stream", "text/event-stream"),
        ("TEXT/Event-Stream;q=0.5, text/html", "TEXT/Event-Stream;q=0.5, text/html"),
        ("application/json,text/event-stream", "application/json,text/event-stream"),
        (b"text/html", "text/html, text/event-stream"),
        (b"text/event-stream", b"text/event-stream"),
    ],
)
def test_accept_is_added_to_what_is_there(before, after):
    for name in ("Accept", "accept"):
        headers = {name: before}
        add_accept_mime(headers)
        assert headers == {name: after}
    session = requests.Session()
    session.headers["accept"] = before
    add_accept_mime(session)
    assert session.headers["Accept"] == after
    environ = {**as_environ(None), "HTTP_ACCEPT": before}
    add_accept_mime(environ)
    assert environ["HTTP_ACCEPT"] == after


def test_the_accept_of_requests_itself_is_replaced():
    session = requests.Session()
    assert session.headers["Accept"] == "*/*"
    prepared = session.prepare_request(a_request())
    add_accept_mime(prepared)
    assert prepared.headers["Accept"] == MEDIA_TYPE


@pytest.mark.slow
def test_long_nonsense_costs_no_more_than_its_length():
    for nonsense in ('"', "a,", "\\", '"\\', ",", "text/event-stream,", "/"):
        assert is_event_stream(nonsense * 100_000) is (nonsense == "text/event-stream,")


@each_case("headers", [{"Last-Event-ID": "5"}, {}], ids=repr)
@each_case("none", [None, ""], ids=repr)
def test_no_id_removes_the_header(headers, none):
    set_last_event_id(headers, none)
    assert headers == {}
    assert get_last_event_id(headers) == ""


def test_a_header_of_none_is_no_id():
    assert get_last_event_id({"Last-Event-ID": None}) == ""
    assert get_last_event_id({"REQUEST_METHOD": "GET", "HTTP_LAST_EVENT_ID": None, "QUERY_STRING": None}) == ""


@pytest.mark.parametrize("wrong", [5, b"5"], ids=repr)
def test_an_id_that_is_no_text_is_refused(wrong):
    with pytest.raises(TypeError, match="a last event ID is text or None"):
        set_last_event_id({}, wrong)
