"""What can be known where a view is defined or a project is configured is said there; ChannelView's attributes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.http import HttpRequest
from django.test import RequestFactory, override_settings
from django.utils.functional import cached_property

from ssesync import SettingsError, Writer
from ssesync.wire import Decoder
from ssesync_django import ChannelView, EventStreamResponse, event_stream, event_writer, get_broker, publish, subscribe
from ssesync_django.apps import app_settings


@pytest.fixture(autouse=True)
def _a_broker_for_each_test() -> Iterator[None]:
    with override_settings(SSESYNC_BROKER="memory://"):
        yield


def opened(response: Any) -> tuple[bytes, Iterator[bytes]]:
    chunks = iter(response)
    return next(chunks), chunks


def data(response: Any) -> list[Any]:
    return [event.data for event in Decoder().feed(b"".join(response))]


# decorators


@pytest.mark.parametrize("decorate", [event_stream, event_writer])
@pytest.mark.parametrize(
    ("options", "message"),
    [({"keepalive": 5}, "did you mean 'keep_alive'"), ({"retry": -1}, "retry"), ({"onclose": print}, "'on_close'")],
)
def test_options_are_checked_by_the_decorator(
    decorate: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        decorate(**options)


def test_functions_that_can_t_work_are_refused_by_the_decorator() -> None:
    async def asynchronous(request: HttpRequest) -> None: ...

    async def yields(request: HttpRequest) -> Any:
        yield "x"

    def generator(request: HttpRequest, w: Writer) -> Iterator[str]:
        yield "x"

    for decorate in (event_stream, event_writer, event_stream(retry=5), event_writer(retry=5)):
        for view in (asynchronous, yields):
            with pytest.raises(TypeError, match="use def instead of async def"):
                decorate(view)
    with pytest.raises(TypeError, match=r"generator\(\) yields, but it is called with a writer"):
        event_writer(generator)
    with pytest.raises(TypeError, match="finished"):
        event_stream(finished=asynchronous)


def test_an_object_that_can_be_iterated_over_either_way_is_streamed(db: None) -> None:
    User.objects.create(username="ada")

    @event_stream
    def users(request: HttpRequest) -> Any:
        return User.objects.values("username")

    request = RequestFactory().get("/")
    assert data(users(request)) == ['{"username":"ada"}']
    assert data(EventStreamResponse(User.objects.values_list("username"), request=request)) == ['["ada"]']


# ChannelView


class Renamed(ChannelView):
    channels = ("a",)
    reset_event = "stream-reset"
    retry = 5
    headers = {"X-A": "1"}  # noqa: RUF012
    stream_options = {"retry": 6, "padding": 3}  # noqa: RUF012
    closed: list[str] = []  # noqa: RUF012

    def on_close(self, reason: str, stats: Any) -> None:
        self.closed.append(f"{self.request.path} {reason}")

    @property
    def last_event_id(self) -> str:
        return str(self.request.GET.get("since", ""))

    @cached_property
    def key(self) -> str:
        return str(self.request.GET["key"])


def test_all_that_subscribe_takes_may_be_an_attribute_of_a_channel_view() -> None:
    response: Any = Renamed.as_view()(RequestFactory().get("/x?since=other-1&key=ada"))
    opening, chunks = opened(response)
    assert opening == b":   \nretry: 5\n"
    assert response["X-A"] == "1"
    assert next(chunks).startswith(b"id: ")
    response.event_stream.cancel()
    assert Renamed.closed == []
    response.event_stream.close()
    assert Renamed.closed == ["/x cancelled"]


def test_all_that_subscribe_takes_may_be_given_to_as_view() -> None:
    closed: list[str] = []
    view = ChannelView.as_view(
        channels=["a"],
        reset_event="fetch-anew",
        keep_alive=0.05,
        last_event_id="other-1",
        key="ada",
        on_close=lambda reason, stats: closed.append(reason),
        headers={"X-A": "2"},
        stream_options={"padding": 1},
    )
    response: Any = view(RequestFactory().get("/"))
    opening, chunks = opened(response)
    assert (opening, response["X-A"]) == (b": \n:ok\n", "2")
    (event,) = Decoder().feed(next(chunks))
    assert event.type == "fetch-anew"
    assert next(chunks) == b":keep-alive\n"
    get_broker().revoke("ada")
    assert list(chunks) == []
    assert closed == ["revoked"]


def test_channels_authorize_and_on_connect_may_be_given_to_as_view() -> None:
    authorized: list[str] = []
    view = ChannelView.as_view(
        channels=["a"],
        authorize=lambda request, channel: authorized.append(channel) or True,
        on_connect=lambda subscription: ["first"],
    )
    response: Any = view(RequestFactory().get("/"))
    _, chunks = opened(response)
    assert next(chunks) == b"data: first\n\n"
    assert authorized == ["a"]
    response.event_stream.close()


async def asynchronous(*args: Any) -> bool:
    return False


class Asynchronous(ChannelView):
    channels = ("a",)

    async def authorize(self, request: HttpRequest, channel: str) -> bool:  # type: ignore[override]
        return False


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (functools.partial(Renamed.as_view, keepalive=5), TypeError, "did you mean 'keep_alive'"),
        (functools.partial(Renamed.as_view, altogether_unknown=5), TypeError, "altogether_unknown"),
        (functools.partial(Renamed.as_view, retry=-1), SettingsError, "retry"),
        (functools.partial(Renamed.as_view, overflow="dropp"), SettingsError, "overflow"),
        (functools.partial(Renamed.as_view, stream_options={"keepalive": 5}), SettingsError, "keep_alive"),
        (functools.partial(Renamed.as_view, on_connect=asynchronous), TypeError, "on_connect of Renamed"),
        (functools.partial(Renamed.as_view, finished=asynchronous), TypeError, "finished"),
        (Asynchronous.as_view, TypeError, "authorize of Asynchronous is called synchronously"),
    ],
)
def test_what_can_t_work_is_refused_by_as_view(
    make: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_check_that_gives_a_coroutine_lets_nobody_in() -> None:
    """The answer of an asynchronous check is a coroutine, and true."""
    with pytest.raises(TypeError, match="called synchronously and gave a coroutine"):
        subscribe(RequestFactory().get("/"), "a", authorize=lambda request, channel: asynchronous())
    assert get_broker().subscriber_count("a") == 0


# settings


def test_unknown_settings_are_found_by_the_system_check_and_by_the_first_use() -> None:
    with override_settings(SSESYNC_KEEP_ALIVE=5):
        (error,) = [check for check in run_checks() if (check.id or "").startswith("ssesync.")]
        assert error.id == "ssesync.E005"
        assert "SSESYNC_KEEP_ALIVE: options go into the mapping SSESYNC, as 'keep_alive'" in error.msg
        with pytest.raises(SettingsError, match="SSESYNC_KEEP_ALIVE"):
            app_settings()
    assert app_settings()
    with override_settings(SSESYNC_BROKER_URL="redis://host", SSESYNC_BROKER="memory://?max_events=7"):
        with pytest.raises(SettingsError, match="did you mean 'SSESYNC_BROKER'"):
            publish("a", "x")


def test_the_keeper_is_the_brokers_and_a_mistake_in_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[str]:
        return [check.id or "" for check in run_checks() if (check.id or "").startswith("ssesync.")]

    with override_settings(SSESYNC_BROKER="sqlite:////tmp/log", SSESYNC_KEEPER="/run/app/keeper.sock"):
        assert get_broker().keeper == "/run/app/keeper.sock"
        assert found() == []
    with override_settings(SSESYNC_BROKER="memory://?max_events=8", SSESYNC_KEEPER="keeper.sock"):
        assert found() == ["ssesync.E006"]
        with pytest.raises(SettingsError, match="absolute path"):
            get_broker()
    monkeypatch.setenv("SSESYNC_KEEPER", "/run/app/keeper.sock")
    with override_settings(SSESYNC_BROKER="memory://?max_events=9"):
        assert get_broker().keeper is None  # the environment's counts
        assert found() == ["ssesync.W003"]
    monkeypatch.setenv("SSESYNC_KEEPER", "keeper.sock")
    with override_settings(SSESYNC_BROKER="memory://?max_events=9"):
        assert found() == ["ssesync.E006"]


def test_an_empty_broker_is_found_by_the_system_check_and_by_the_first_use() -> None:
    with override_settings(SSESYNC_BROKER=""):
        (error,) = [check for check in run_checks() if (check.id or "").startswith("ssesync.")]
        assert error.id == "ssesync.E002"
        assert "SSESYNC_BROKER: the broker's URL is empty" in error.msg
        with pytest.raises(SettingsError, match="empty"):
            get_broker()
