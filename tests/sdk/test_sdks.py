"""The official SDKs of OpenAI and Anthropic: whole answers, errors, a server that stops, and clients that leave."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import HOOKS, Kind, Server, eventually, gunicorn, running

from ..apps.flask_app.sdk import SECRET
from ..later import ImportedLater

if TYPE_CHECKING:
    import anthropic
    import openai
else:
    anthropic, openai = ImportedLater("anthropic"), ImportedLater("openai")

TIMEOUT = 90.0
KIND = Kind(
    "sdk", gunicorn("--worker-class", "gthread", "--threads", "8", app="flask_app.sdk", config=HOOKS)
)  # fmt: skip
MESSAGES: Any = [{"role": "user", "content": "Say something."}]
#: Goes on for longer than any test, at 20 ms a word.
ENDLESS = 100_000


def broken() -> tuple[type[Exception], ...]:
    """What the SDKs raise where the connection ends too early. Some releases let their HTTP library's own error
    through, which since 2026 is a successor of httpx under another name."""
    return (
        openai.APIConnectionError,
        anthropic.APIConnectionError,
        *(sys.modules[name].RemoteProtocolError for name in ("httpx", "httpx2") if name in sys.modules),
    )


#: Reads an answer: called with the server's port, the model, how many words and the stream's options.
Ask = Callable[..., contextlib.AbstractContextManager[Iterator[str]]]


@contextlib.contextmanager
def of_openai(port: int) -> Iterator[openai.OpenAI]:
    with openai.DefaultHttpxClient(trust_env=False, timeout=TIMEOUT) as http:
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0, http_client=http)


@contextlib.contextmanager
def chat(port: int, model: str, count: int, **options: Any) -> Iterator[Iterator[str]]:
    headers = {"X-Options": json.dumps(options)}
    with (
        of_openai(port) as client,
        client.chat.completions.create(
            model=model, messages=MESSAGES, max_tokens=count, stream=True, extra_headers=headers
        ) as stream,
    ):
        yield (text for chunk in stream if chunk.choices and (text := chunk.choices[0].delta.content))


@contextlib.contextmanager
def responses(port: int, model: str, count: int, **options: Any) -> Iterator[Iterator[str]]:
    headers = {"X-Options": json.dumps(options)}
    with (
        of_openai(port) as client,
        client.responses.create(
            model=model, input="Say something.", max_output_tokens=count, stream=True, extra_headers=headers
        ) as stream,
    ):
        yield (event.delta for event in stream if event.type == "response.output_text.delta")


@contextlib.contextmanager
def messages(port: int, model: str, count: int, **options: Any) -> Iterator[Iterator[str]]:
    headers = {"X-Options": json.dumps(options)}
    with anthropic.DefaultHttpxClient(trust_env=False, timeout=TIMEOUT) as http:
        client = anthropic.Anthropic(
            base_url=f"http://127.0.0.1:{port}", api_key="x", max_retries=0, http_client=http
        )  # fmt: skip
        with client.messages.create(
            model=model, messages=MESSAGES, max_tokens=count, stream=True, extra_headers=headers
        ) as stream:
            yield (
                event.delta.text
                for event in stream
                if event.type == "content_block_delta" and event.delta.type == "text_delta"
            )


ALL = pytest.mark.parametrize("ask", [chat, responses, messages], ids=lambda ask: ask.__name__)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(KIND, tmp_path_factory.mktemp("sdk")) as server:
        yield server


@ALL
def test_a_whole_answer(server: Server, ask: Ask):
    with ask(server.port, "m", 20) as answer:
        assert "".join(answer).split() == [f"word{number}" for number in range(20)]


@ALL
def test_an_error_in_mid_stream_is_raised_and_says_nothing_secret(server: Server, ask: Ask):
    with ask(server.port, "fail", 20) as answer:
        with pytest.raises((openai.APIError, anthropic.APIError)) as caught:
            list(answer)
    assert not isinstance(caught.value, broken())
    assert "because of an error on the server" in str(caught.value)
    assert SECRET not in str(caught.value)


@ALL
def test_without_an_error_event_of_the_sdks_format_an_incomplete_answer_raises(server: Server, ask: Ask):
    """By the answer's end, which is none."""
    with ask(server.port, "fail", 20, error_event={"type": "RUN_ERROR", "message": "It failed."}) as answer:
        with pytest.raises(broken()):
            list(answer)


@ALL
def test_a_client_that_leaves_ends_the_answer(server: Server, ask: Ask):
    before = json.loads(server.fetch("/closed")).count("client_gone")
    with ask(server.port, "m", ENDLESS) as answer:
        assert next(answer) == "word0 "
    assert eventually(lambda: json.loads(server.fetch("/closed")).count("client_gone") > before)


@pytest.fixture
def stopping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(KIND, tmp_path_factory.mktemp("sdk")) as server:
        yield server


def test_a_server_that_stops_lets_answers_finish(stopping: Server):
    """With the default settings, from all three at once."""
    with contextlib.ExitStack() as stack:
        answers = [stack.enter_context(ask(stopping.port, "m", 60)) for ask in (chat, responses, messages)]
        assert [next(answer) for answer in answers] == ["word0 "] * 3
        stopping.signal(signal.SIGTERM)
        for answer in answers:
            assert "".join(answer).split() == [f"word{number}" for number in range(1, 60)]
    assert stopping.leaves()


@pytest.mark.parametrize(
    "options", [{"drain": "end"}, {"drain_timeout": 0.3}], ids=["the old setting", "the time is over"]
)
def test_an_answer_that_does_not_finish_is_raised(stopping: Server, options: dict[str, Any]):
    with contextlib.ExitStack() as stack:
        answers = [
            stack.enter_context(ask(stopping.port, "m", ENDLESS, **options)) for ask in (chat, responses, messages)
        ]
        assert [next(answer) for answer in answers] == ["word0 "] * 3
        stopping.signal(signal.SIGTERM)
        for answer in answers:
            with pytest.raises((openai.APIError, anthropic.APIError), match="the server is stopping"):
                list(answer)
    assert stopping.leaves()
    unfinished = stopping.log().count("was still running")
    assert unfinished == (3 if "drain_timeout" in options else 0)
