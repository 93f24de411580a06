"""The gateway example under gunicorn, read by the official clients through both levels."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import requests

from tests.later import ImportedLater
from tests.redis_server import lasting_port

from . import llm
from .started import environment, gunicorn, listens

if TYPE_CHECKING:
    import anthropic
    import openai
    from openai import OpenAI
else:
    anthropic, openai = ImportedLater("anthropic"), ImportedLater("openai")

MESSAGES: Any = [{"role": "user", "content": "How does a token get here?"}]


@pytest.fixture(scope="module")
def system() -> Iterator[llm.Running]:
    with llm.running(MODEL_PACE="100") as system:
        yield system


@pytest.fixture
def client_of() -> Iterator[Callable[..., OpenAI]]:
    clients: list[OpenAI] = []

    def make(url: str, key: str = "local") -> OpenAI:
        http = openai.DefaultHttpxClient(trust_env=False)
        options: dict[str, Any] = {"max_retries": 0, "timeout": llm.TIMEOUT, "http_client": http}
        clients.append(openai.OpenAI(base_url=f"{url}/v1", api_key=key, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@contextlib.contextmanager
def chat(url: str, count: int, model: str = "any") -> Iterator[Iterator[str]]:
    """The texts of an answer, as OpenAI's client yields them."""
    with (
        openai.DefaultHttpxClient(trust_env=False, timeout=llm.TIMEOUT) as http,
        openai.OpenAI(base_url=f"{url}/v1", api_key="local", max_retries=0, http_client=http) as client,
        client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=count, stream=True) as stream,
    ):
        yield (text for chunk in stream if (text := chunk.choices[0].delta.content))


@contextlib.contextmanager
def messages(url: str, count: int, model: str = "any") -> Iterator[Iterator[str]]:
    """The same by Anthropic's."""
    with (
        anthropic.DefaultHttpxClient(trust_env=False, timeout=llm.TIMEOUT) as http,
        anthropic.Anthropic(base_url=url, api_key="local", max_retries=0, http_client=http) as client,
        client.messages.stream(model=model, messages=MESSAGES, max_tokens=count) as stream,
    ):
        yield stream.text_stream


BOTH = pytest.mark.parametrize("ask", [chat, messages], ids=lambda ask: ask.__name__)


@pytest.fixture
def client(system: llm.Running, client_of: Callable[..., OpenAI]) -> OpenAI:
    return client_of(system.url)


def test_the_official_client_reads_the_whole_answer_through_both_levels(system: llm.Running, client: OpenAI) -> None:
    before = system.wait_for(lambda counters: counters["running"] == 0)
    with client.chat.completions.create(model="any", messages=MESSAGES, stream=True, max_tokens=40) as stream:
        chunks = list(stream)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "length"]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.split()[:5] == ["Each", "token", "appears", "on", "your"]
    after = system.wait_for(lambda counters: counters["running"] == 0)
    assert after["produced"] - before["produced"] == after["asked"] - before["asked"] == len(text.split()) == 40
    whole = client.chat.completions.create(model="any", messages=MESSAGES, max_tokens=40)
    assert whole.choices[0].message.content == text
    with messages(system.url, 40) as answer:
        assert "".join(answer) == text


def test_the_first_token_is_there_long_before_the_last_is_made(system: llm.Running, client: OpenAI) -> None:
    system.wait_until_at_rest()
    asked = system.counters()["asked"]
    with client.chat.completions.create(model="any", messages=MESSAGES, stream=True, max_tokens=100_000) as stream:
        next(chunk for chunk in stream if chunk.choices[0].delta.content)
        counters = system.counters()
        assert counters["running"] == 1
        assert counters["asked"] - asked == 100_000
    system.wait_until_at_rest()


@BOTH
def test_breaking_out_of_the_client_s_loop_ends_the_model_s_production(ask: Any, system: llm.Running) -> None:
    before = system.wait_until_at_rest()
    with ask(system.url, 100_000) as answer:
        for _ in range(10):
            next(answer)
    assert 10 <= system.wait_until_at_rest() - before < 10_000


def test_a_stop_ends_a_model_that_is_silent(client_of: Callable[..., OpenAI]) -> None:
    # One token in 20 s: nothing is written that could fail. The model's own sleep is what is left to wait for.
    with llm.running(MODEL_PACE="0.05") as slow:
        stream = client_of(slow.url).chat.completions.create(
            model="any", messages=MESSAGES, stream=True, max_tokens=100_000
        )
        with stream:
            assert next(stream).choices[0].delta.role == "assistant"
        with requests.Session() as session:
            session.trust_env = False
            # A thread of the model is in its sleep; the connections of both gateways are closed all the same.
            outer, inner, model = (psutil.Process(pid) for pid in workers(slow, "outer", "inner", "model"))
            end = time.monotonic() + llm.TIMEOUT / 2
            while any(established(process) for process in (outer, inner, model)):
                assert time.monotonic() < end
                time.sleep(0.02)


def workers(system: llm.Running, *names: str) -> list[int]:
    order = {"model": 0, "inner": 1, "outer": 2}
    arbiters = sorted(psutil.Process(system.process.pid).children(), key=lambda process: process.create_time())
    return [arbiters[order[name]].children()[0].pid for name in names]


def established(process: psutil.Process) -> bool:
    return any(connection.status == psutil.CONN_ESTABLISHED for connection in process.net_connections("tcp"))


def test_a_wrong_key_is_the_model_s_401_for_the_client(system: llm.Running, client_of: Callable[..., OpenAI]) -> None:
    for stream in (True, False):
        with pytest.raises(openai.AuthenticationError) as caught:
            client_of(system.url, "wrong").chat.completions.create(model="any", messages=MESSAGES, stream=stream)
        assert caught.value.status_code == 401
        assert caught.value.code == "invalid_api_key"
        assert caught.value.response.headers["Content-Type"] == "application/json"


def test_a_wrong_question_is_the_model_s_400_for_the_client(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="messages is required"):
        client.chat.completions.create(model="any", messages=[], stream=True)


def test_a_browser_without_a_key_is_given_the_gateway_s(system: llm.Running) -> None:
    body = {"model": "any", "messages": MESSAGES, "max_tokens": 3}
    assert requests.post(f"{system.url}/v1/chat/completions", json=body, timeout=llm.TIMEOUT).status_code == 200
    # The inner gateway has none to give.
    assert requests.post(f"{system.urls[1]}/v1/chat/completions", json=body, timeout=llm.TIMEOUT).status_code == 401


@pytest.mark.parametrize("path", ["v1/chat/completions", "v1/messages", "answers"])
def test_forms_of_other_sites_and_huge_requests_are_refused(system: llm.Running, path: str) -> None:
    body = json.dumps({"model": "any", "messages": MESSAGES, "max_tokens": 3})
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = requests.post(f"{system.url}/{path}", body, headers={"Content-Type": kind}, timeout=llm.TIMEOUT)
        assert answer.status_code == 415
    connection = http.client.HTTPConnection(system.url.removeprefix("http://"), timeout=llm.TIMEOUT)
    with contextlib.closing(connection):
        connection.request("POST", f"/{path}", headers={"Content-Type": "application/json", "Content-Length": 2**40})
        assert connection.getresponse().status == 413


def test_a_model_that_is_not_there_is_an_error_the_client_understands(
    tmp_path: Path, client_of: Callable[..., OpenAI]
) -> None:
    closed = f"http://127.0.0.1:{lasting_port()}"
    with gunicorn("llm_gateway", tmp_path, UPSTREAM=closed, NO_PROXY="127.0.0.1") as gateway:
        with pytest.raises(openai.InternalServerError, match="502") as caught:
            client_of(gateway.url.rstrip("/")).chat.completions.create(model="any", messages=MESSAGES, stream=True)
        assert caught.value.status_code == 502


def test_an_answer_that_is_not_whole_raises_in_both_clients() -> None:
    errors = (openai.APIError, anthropic.APIError)
    with llm.running(quiet=False, MODEL_PACE="100") as system:
        for ask in (chat, messages):
            with ask(system.url, 20, "broken") as answer, pytest.raises(errors, match="an error on the server"):
                list(answer)
        # Read by both at once, and killed.
        with chat(system.url, 100_000) as first, messages(system.url, 100_000) as second:
            for answer in (first, second):
                next(answer)
            psutil.Process(workers(system, "model")[0]).kill()
            for answer in (first, second):
                with pytest.raises(errors, match=r"The model broke off\."):
                    list(answer)


def test_the_page_loads_no_external_files(system: llm.Running) -> None:
    answer = requests.get(f"{system.url}/", timeout=llm.TIMEOUT)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert not re.findall(r"https?://|\bsrc=|@import|\burl\(|innerHTML", answer.text)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_end_takes_all_three_along_without_a_word(end: signal.Signals, client_of: Callable[..., OpenAI]) -> None:
    with llm.running(MODEL_PACE="100") as system:
        assert system.counters()["running"] == 0  # all workers are up
        pids = [process.pid for process in psutil.Process(system.process.pid).children(recursive=True)]
        assert len(pids) == 6
        with client_of(system.url).chat.completions.create(
            model="any", messages=MESSAGES, stream=True, max_tokens=100_000
        ) as stream:
            for _ in range(10):  # so that no server is about to start a thread for it, and would wait for itself
                next(stream)
            os.killpg(system.process.pid, end)
            with pytest.raises(openai.APIError):  # an answer that is not whole does not end like one
                list(stream)
        assert system.process.wait(30) == 0
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not any(listens(int(url.rpartition(":")[2])) for url in system.urls)


def test_a_port_that_is_in_use_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            llm.RUN, env=environment(PORT=str(port)), capture_output=True, text=True, timeout=200, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"can't listen on port {port}: ")
    assert "Traceback" not in done.stderr


def test_a_port_that_is_no_number_is_named() -> None:
    done = subprocess.run(
        llm.RUN, env=environment(PORT="many"), capture_output=True, text=True, timeout=200, check=False
    )
    assert (done.returncode, done.stderr) == (1, "PORT takes a number, got 'many'\n")
