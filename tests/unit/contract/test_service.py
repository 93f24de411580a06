"""The service itself, and the harness's flows that are about one request and its answer."""

from __future__ import annotations

import pytest
import requests

from tests.unit.client.raw_server import TIMEOUT

from .harness import JSON_BODY, JSON_TYPE, Ear, Service, StreamServer, answer


class TestTheService:
    def test_claims_every_capability_but_event_type_listeners(self, service: Service) -> None:
        status = requests.get(service.url, timeout=TIMEOUT)
        assert status.status_code == 200
        assert status.headers["Content-Type"] == "application/json"
        expected = (
            "bom comments headers last-event-id post read-timeout report restart server-directed-shutdown-request"
        )
        assert status.json()["capabilities"] == expected.split()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"streamUrl": None},
            {"streamUrl": 7},
            {"streamUrl": "ftp://127.0.0.1/"},
            {"streamUrl": "http:///nowhere"},
            {"streamUrl": "http://[::1/"},
            {"callbackUrl": None},
            {"callbackUrl": "nowhere"},
            {"initialDelayMs": "5"},
            {"initialDelayMs": -1},
            {"initialDelayMs": True},
            {"readTimeoutMs": 1.5},
            {"readTimeoutMs": 0},
            {"lastEventId": 3},
            {"lastEventId": "a\nb"},
            {"method": "GET /"},
            {"method": 1},
            {"headers": []},
            {"headers": ["a"]},
            {"headers": {"a": 1}},
            {"body": {}},
        ],
        ids=str,
    )
    def test_refuses_a_parameter_that_makes_no_sense(self, service: Service, wrong: dict[str, object]) -> None:
        right = {"callbackUrl": "http://127.0.0.1:9/", "streamUrl": "http://127.0.0.1:9/"}
        assert service.post({**right, **wrong}).status_code == 400

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null"])
    def test_refuses_what_is_no_json_object(self, service: Service, server: StreamServer, body: bytes) -> None:
        assert requests.post(service.url, data=body, timeout=TIMEOUT).status_code == 400
        with service.client(server) as client:
            assert requests.post(client.url, data=body, timeout=TIMEOUT).status_code == 400

    def test_refuses_a_command_that_it_does_not_know(self, service: Service, server: StreamServer) -> None:
        with service.client(server) as client:
            assert client.command("listen") == 400

    def test_the_service_has_only_the_streams_that_it_made(self, service: Service, server: StreamServer) -> None:
        nowhere = service.url + "streams/0"
        assert requests.delete(nowhere, timeout=TIMEOUT).status_code == 404
        assert requests.post(nowhere, json={"command": "restart"}, timeout=TIMEOUT).status_code == 404
        assert requests.get(nowhere, timeout=TIMEOUT).status_code == 404
        with service.client(server) as client:
            assert client.delete() == 204
            assert client.delete() == 404
            assert client.command("restart") == 404

    def test_finds_a_stream_whose_path_was_appended_to_the_base_url(
        self, service: Service, server: StreamServer
    ) -> None:
        with service.client(server) as client:
            client.url = client.url.replace("/streams/", "//streams/")
            assert client.delete() == 204

    @pytest.mark.slow
    def test_ends_when_it_is_deleted_though_a_stream_is_open(self, ear: Ear, server: StreamServer) -> None:
        service = Service(ear)
        callback_url, messages = ear.new()
        assert service.post({"callbackUrl": callback_url, "streamUrl": server.url}).status_code == 201
        connection = server.connection()
        connection.send("data: Hello\n\n")
        assert messages.get(timeout=TIMEOUT)[0] == 1
        connection.hold()
        assert service.stop() == 0
        server.wait_until_client_left()


class TestRequests:
    def test_a_request_has_these_headers(self, service: Service, server: StreamServer) -> None:
        with service.client(server):
            request = server.connection().request
        assert request.method == "GET"
        assert request.headers["accept"] == "text/event-stream"
        assert request.headers["cache-control"] == "no-cache"
        assert "last-event-id" not in request.headers
        assert "content-type" not in request.headers
        assert request.body == b""

    def test_headers_of_ones_own_are_sent(self, service: Service, server: StreamServer) -> None:
        headers = {"header-name-1": "value-1", "header-name-2": "value-2"}
        with service.client(server, headers=headers):
            request = server.connection().request
        assert headers.items() <= request.headers.items()
        assert request.headers["accept"] == "text/event-stream"

    @pytest.mark.parametrize("method", ["POST", "REPORT"])
    def test_a_body_is_sent_with_its_type(self, service: Service, server: StreamServer, method: str) -> None:
        with service.client(server, method=method, headers=JSON_TYPE, body=JSON_BODY):
            request = server.connection().request
        assert (request.method, request.body.decode()) == (method, JSON_BODY)
        assert request.headers["content-type"] == JSON_TYPE["content-type"]
        assert request.headers["accept"] == "text/event-stream"

    def test_a_body_without_a_type_is_text(self, service: Service, server: StreamServer) -> None:
        with service.client(server, method="POST", body="grüezi"):
            request = server.connection().request
        assert request.body.decode() == "grüezi"
        assert request.headers["content-type"] == "text/plain; charset=utf-8"

    @pytest.mark.parametrize("last_event_id", ["abc", "zwölf €"])
    def test_the_first_request_has_the_id_to_start_from(
        self, service: Service, server: StreamServer, last_event_id: str
    ) -> None:
        with service.client(server, lastEventId=last_event_id, initialDelayMs=0) as client:
            connection = server.connection()
            assert connection.request.headers["last-event-id"].encode("latin-1").decode() == last_event_id
            connection.send("data: Hello\n\n")
            assert client.event() == ("message", "Hello", last_event_id)
            connection.drop()
            again = server.connection().request
            assert again.headers["last-event-id"].encode("latin-1").decode() == last_event_id


class TestAnswers:
    def test_204_is_the_end(self, service: Service) -> None:
        # The connection that the answer leaves open is given up as the source ends, having asked but once.
        with StreamServer([answer("204 No Content")]) as server, service.client(server, initialDelayMs=0) as client:
            server.wait_until_client_left()
            assert client.delete() == 204
            assert len(server.requests) == 1
            client.assert_silent()

    @pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
    def test_a_redirect_is_followed(self, service: Service, server: StreamServer, status: str) -> None:
        first = StreamServer([answer(status, f"Location: {server.url}")])
        with first, service.client(first) as client:
            connection = server.connection()
            assert connection.request.headers["accept"] == "text/event-stream"
            connection.send("data: Hello\n\n")
            assert client.event() == ("message", "Hello", "")

    @pytest.mark.parametrize("headers", [[], ["Location:"]], ids=["missing", "empty"])
    @pytest.mark.parametrize("status", ["301 Moved", "307 Temporary"])
    def test_a_redirect_to_nowhere_is_one_error(self, service: Service, status: str, headers: list[str]) -> None:
        with (
            StreamServer([answer(status, *headers)]) as server,
            service.client(server, initialDelayMs=0) as client,
        ):
            assert status[:3] in client.error()
            server.wait_until_client_left()
            assert client.delete() == 204
            assert len(server.requests) == 1
            client.assert_silent()

    def test_a_redirect_in_a_circle_is_an_error(self, service: Service) -> None:
        circle = [answer("302 Found", "Location: /")] * 60
        with StreamServer(circle) as server, service.client(server, initialDelayMs=0) as client:
            assert client.error()
            server.wait_until_client_left()
            assert client.delete() == 204
            client.assert_silent()
            assert 1 < len(server.requests) < 50

    @pytest.mark.parametrize("status", ["401 Unauthorized", "404 Not Found"])
    def test_another_status_is_one_error(self, service: Service, status: str) -> None:
        with StreamServer([answer(status)]) as server, service.client(server, initialDelayMs=0) as client:
            assert status[:3] in client.error()
            server.wait_until_client_left()
            assert client.delete() == 204
            assert len(server.requests) == 1
            client.assert_silent()

    @pytest.mark.parametrize("status", ["429 Too Many", "500 Internal", "503 Unavailable"])
    def test_a_status_that_may_pass_is_reported_and_tried_again(self, service: Service, status: str) -> None:
        with StreamServer([answer(status)] * 2) as server, service.client(server, initialDelayMs=0) as client:
            assert status[:3] in client.error()
            assert status[:3] in client.error()
            server.connection().send("data: Hello\n\n")
            assert client.event() == ("message", "Hello", "")
