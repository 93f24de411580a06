"""The harness's flows that go over more than one connection, and the ends of a stream."""

from __future__ import annotations

import pytest

from .harness import JSON_BODY, JSON_TYPE, Service, StreamServer, answer

DROPS = pytest.mark.parametrize("how", ["last chunk", "FIN", "RST"])


class TestReconnecting:
    @DROPS
    def test_the_next_request_has_the_last_id(self, service: Service, server: StreamServer, how: str) -> None:
        with service.client(server, initialDelayMs=0) as client:
            connection = server.connection()
            assert "last-event-id" not in connection.request.headers
            connection.send("id: abc\ndata: Hello\n\n", "data: World\n\n")
            assert client.event() == ("message", "Hello", "abc")
            assert client.event() == ("message", "World", "abc")
            connection.drop(how)
            again = server.connection()
            assert again.request.headers["last-event-id"] == "abc"
            assert client.error()
            again.send("id: def\ndata: We meet again\n\n")
            assert client.event() == ("message", "We meet again", "def")

    def test_an_empty_id_is_not_sent(self, service: Service, server: StreamServer) -> None:
        with service.client(server, initialDelayMs=0) as client:
            connection = server.connection()
            connection.send("id: abc\ndata: Hello\n\n", "id: \ndata: World\n\n")
            assert client.event() == ("message", "Hello", "abc")
            assert client.event() == ("message", "World", "")
            connection.drop()
            assert "last-event-id" not in server.connection().request.headers

    @DROPS
    def test_a_partial_event_is_dropped_with_its_connection(
        self, service: Service, server: StreamServer, how: str
    ) -> None:
        with service.client(server, initialDelayMs=0) as client:
            connection = server.connection()
            connection.send("id: abc\ndata: Hello\n\nid: def\nevent: parting\ndata: Goodbye")
            assert client.event() == ("message", "Hello", "abc")
            connection.drop(how)
            again = server.connection()
            assert again.request.headers["last-event-id"] == "abc"
            assert client.error()
            again.send("data: We meet again\n\n")
            assert client.event() == ("message", "We meet again", "abc")

    @pytest.mark.parametrize("method", ["POST", "REPORT"])
    def test_the_body_is_sent_again(self, service: Service, server: StreamServer, method: str) -> None:
        with service.client(server, method=method, headers=JSON_TYPE, body=JSON_BODY, initialDelayMs=0):
            server.connection().drop()
            request = server.connection().request
        assert (request.method, request.body.decode()) == (method, JSON_BODY)
        assert request.headers["content-type"] == JSON_TYPE["content-type"]

    def test_silence_past_the_read_timeout_is_an_error_and_the_end_of_the_connection(self, service: Service) -> None:
        with StreamServer(opening="data: Hello\n\n") as server:
            with service.client(server, initialDelayMs=0, readTimeoutMs=200) as client:
                server.connection().hold()
                assert client.event() == ("message", "Hello", "")
                assert client.error()
                server.wait_until_client_left()
                server.connection()
                assert client.event() == ("message", "Hello", "")

    @pytest.mark.slow
    def test_the_delay_has_a_default(self, service: Service, server: StreamServer) -> None:
        with service.client(server) as client:
            server.connection().drop()
            assert client.error()
            server.connection().send("data: Hello\n\n")
            assert client.event() == ("message", "Hello", "")


class TestRestarting:
    def test_a_restart_is_a_new_connection_and_no_error(self, service: Service, server: StreamServer) -> None:
        with service.client(server, initialDelayMs=0) as client:
            connection = server.connection()
            connection.send("id: abc\ndata: Hello\n\n")
            assert client.event() == ("message", "Hello", "abc")
            connection.hold()
            assert client.command("restart") == 202
            server.wait_until_client_left()
            again = server.connection()
            assert again.request.headers["last-event-id"] == "abc"
            again.send("data: Thanks\n\n")
            assert client.event() == ("message", "Thanks", "abc")

    def test_a_restart_waits_for_no_delay(self, service: Service, server: StreamServer) -> None:
        with service.client(server, initialDelayMs=3_600_000) as client:
            connection = server.connection()
            connection.send("data: Hello\n\n")
            assert client.event() == ("message", "Hello", "")
            connection.hold()
            assert client.command("restart") == 202
            server.connection().send("data: Thanks\n\n")
            assert client.event() == ("message", "Thanks", "")

    def test_a_restart_ends_a_wait(self, service: Service, server: StreamServer) -> None:
        with service.client(server, initialDelayMs=3_600_000) as client:
            server.connection().drop()
            assert client.error()
            assert client.command("restart") == 202
            server.connection().send("data: Thanks\n\n")
            assert client.event() == ("message", "Thanks", "")

    def test_restarts_in_a_row_leave_one_connection_that_works(self, service: Service, server: StreamServer) -> None:
        with service.client(server, initialDelayMs=0) as client:
            connection = server.connection()
            for number in range(10):
                connection.hold()
                assert client.command("restart") == 202
                server.wait_until_client_left()
                connection = server.connection()
                connection.send(f"data: {number}\n\n")
                assert client.event() == ("message", str(number), "")

    def test_what_is_over_is_not_restarted(self, service: Service) -> None:
        with StreamServer([answer("204 No Content")]) as server, service.client(server, initialDelayMs=0) as client:
            server.wait_until_client_left()
            assert client.command("restart") == 202
            assert client.delete() == 204
            assert len(server.requests) == 1


class TestStopping:
    def test_a_stream_that_is_deleted_gives_up_its_connection_and_reports_nothing(
        self, service: Service, server: StreamServer
    ) -> None:
        with service.client(server, initialDelayMs=0) as client:
            connection = server.connection()
            connection.send(":Hello\n")
            assert client.comment() == "Hello"
            connection.hold()
            assert client.delete() == 204
            server.wait_until_client_left()
            client.assert_silent()
            assert len(server.requests) == 1

    def test_nothing_is_reported_after_a_delete_in_the_middle_of_many_events(
        self, service: Service, server: StreamServer
    ) -> None:
        with service.client(server) as client:
            server.connection().send("".join(f"data: message {number}\n\n" for number in range(5000)))
            assert client.event() == ("message", "message 0", "")
            assert client.delete() == 204
            seen = client.waiting()
            assert seen < 4999
            with service.client(server):  # time for one that comes late
                server.connection()
            assert client.waiting() == seen

    def test_a_stream_that_waits_to_reconnect_is_deleted_at_once(self, service: Service, server: StreamServer) -> None:
        with service.client(server, initialDelayMs=3_600_000) as client:
            server.connection().drop()
            assert client.error()
            assert client.delete() == 204
            assert len(server.requests) == 1
            client.assert_silent()

    def test_a_stream_whose_server_does_not_answer_is_deleted_at_once(self, service: Service) -> None:
        with StreamServer([b""]) as server, service.client(server) as client:
            server.wait_for_request()
            assert client.delete() == 204
            server.wait_until_client_left()
            client.assert_silent()

    def test_a_stream_that_can_not_connect_reports_it(self, service: Service) -> None:
        with StreamServer() as server:
            gone = server.url
        with service.client(gone, initialDelayMs=3_600_000) as client:
            assert client.error()
