"""Streams that pages of other origins may not open, or may read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from ssesync import EventStream, SettingsError

from ...cases import each_case

APP, EVIL = "https://app.example", "https://evil.example"


def ask(headers: dict[str, str], **options: Any) -> tuple[str, dict[str, str], bytes, int]:
    """Status, headers, body and how often the producer ran."""
    ran = []

    def produce() -> Iterator[str]:
        ran.append(1)
        yield "secret"

    environ: dict[str, Any] = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    setup_testing_defaults(environ)
    answer: list[Any] = []
    body = EventStream(produce, **options)(environ, lambda *started: answer.extend(started))  # type: ignore[arg-type]
    sent = b"".join(body)
    body.close()  # type: ignore[attr-defined]
    return answer[0], dict(answer[1]), sent, len(ran)


def test_a_page_of_another_origin_is_answered_403_and_nothing_is_produced() -> None:
    status, _, body, ran = ask({"Origin": EVIL}, same_origin_only=True)
    assert status == "403 Forbidden"
    assert b"secret" not in body
    assert ran == 0


@each_case("headers", [{}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://127.0.0.1"}])
def test_its_own_pages_and_what_is_no_browser_pass(headers: dict[str, str]) -> None:
    status, _, body, _ = ask(headers, same_origin_only=True)
    assert status == "200 OK"
    assert b"data: secret" in body


def test_a_listed_origin_passes_and_may_read_cookies_and_all() -> None:
    status, headers, body, _ = ask(
        {"Origin": APP, "Sec-Fetch-Site": "cross-site"}, same_origin_only=True, cors_origins=[APP],
        cors_credentials=True,
    )  # fmt: skip
    assert status == "200 OK"
    assert b"data: secret" in body
    assert headers["Access-Control-Allow-Origin"] == APP
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Vary"] == "Origin"


@pytest.mark.parametrize("options", [{"same_origin_only": True}, {"finished": lambda _: True}])
def test_answers_that_are_no_stream_carry_the_headers_too(options: dict[str, Any]) -> None:
    _, headers, _, ran = ask({"Origin": EVIL}, cors_origins=[APP], **options)
    assert headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Origin" not in headers
    assert ran == 0


def test_without_the_setting_there_are_no_such_headers() -> None:
    _, headers, _, _ = ask({"Origin": APP})
    assert not {name for name in headers if name.startswith("Access-Control") or name == "Vary"}


@each_case(
    "options",
    [
        {"cors_origins": APP},
        {"cors_origins": ["app.example"]},
        {"cors_origins": ["https://app.example/"]},
        {"cors_origins": ["https://App.example"]},
        {"cors_origins": [5]},
        {"cors_origins": ["*"], "cors_credentials": True},
        {"cors_origins": ["*", APP]},
        {"same_origin_only": "yes"},
    ],
)
def test_origins_that_would_never_match_or_let_all_in_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"cors_origins|same_origin_only"):
        EventStream([], **options)


@each_case("origin", ["https://app.example:8443", "http://[::1]:8000", "null-app://x", "*"])
def test_origins_as_browsers_send_them_are_taken(origin: str) -> None:
    assert EventStream([], cors_origins={origin}).settings.cors_origins == (origin,)
