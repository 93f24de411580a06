"""Whose pages may read a stream."""

from __future__ import annotations

from ssesync.wire.origin import is_same_origin, with_cors

from ...cases import each_case


def environ(host: str = "app.example", **headers: str) -> dict[str, str]:
    return {"HTTP_HOST": host, **{f"HTTP_{name.upper()}": value for name, value in headers.items()}}


@each_case(
    "host, headers, same",
    [
        ("app.example", {}, True),
        ("app.example", {"sec_fetch_site": "same-origin"}, True),
        ("app.example", {"sec_fetch_site": "none"}, True),
        ("app.example", {"sec_fetch_site": "same-site"}, False),
        ("app.example", {"sec_fetch_site": "cross-site"}, False),
        ("app.example", {"sec_fetch_site": "cross-site", "origin": "https://app.example"}, False),
        ("app.example", {"origin": "https://app.example"}, True),
        ("app.example", {"origin": "http://app.example"}, True),  # a proxy may have ended TLS
        ("app.example:443", {"origin": "https://app.example"}, True),
        ("app.example:8443", {"origin": "https://app.example:8443"}, True),
        ("APP.example", {"origin": "https://app.example"}, True),
        ("[::1]:8000", {"origin": "http://[::1]:8000"}, True),
        ("app.example", {"origin": "https://app.example:8443"}, False),
        ("app.example", {"origin": "https://evil.example"}, False),
        ("app.example", {"origin": "https://app.example.evil.example"}, False),
        ("app.example", {"origin": "null"}, False),
        ("app.example", {"origin": "https://app.example:port"}, False),
        ("", {"origin": "null"}, False),
    ],
)
def test_a_request_is_of_the_same_origin(host: str, headers: dict[str, str], same: bool) -> None:
    assert is_same_origin(environ(host, **headers)) is same


ALLOWED = ("https://app.example", "https://other.example")


@each_case("origin", [*ALLOWED, "https://evil.example", "null", "https://app.example/", None])
@each_case("credentials", [True, False])
def test_only_a_listed_origin_is_allowed_and_the_answer_varies_by_it_in_any_case(
    origin: str | None, credentials: bool
) -> None:
    request = environ(**({} if origin is None else {"origin": origin}))
    headers = dict(with_cors([("X-Own", "1")], request, ALLOWED, credentials=credentials))
    expected = {"X-Own": "1", "Vary": "Origin"}
    if origin in ALLOWED:
        expected["Access-Control-Allow-Origin"] = str(origin)
        if credentials:
            expected["Access-Control-Allow-Credentials"] = "true"
    assert headers == expected


def test_the_star_allows_all_and_so_varies_by_none() -> None:
    assert with_cors([], environ(origin="https://any.example"), ("*",), credentials=False) == [
        ("Access-Control-Allow-Origin", "*")
    ]


@each_case("vary, expected", [("Cookie", "Cookie, Origin"), ("Cookie, origin", "Cookie, origin"), ("*", "*")])
def test_a_vary_header_that_is_there_is_added_to(vary: str, expected: str) -> None:
    assert dict(with_cors([("vary", vary)], environ(), ALLOWED, credentials=False)) == {"Vary": expected}


def test_the_caller_s_own_cors_headers_win() -> None:
    own = [("access-control-allow-origin", "https://own.example")]
    assert with_cors(own, environ(origin=ALLOWED[0]), ALLOWED, credentials=True) == own
