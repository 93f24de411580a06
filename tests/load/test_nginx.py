"""Hundreds behind nginx, whose upstream is a sync worker on a unix socket."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.live.channels.processes import Publisher
from tests.live.streams.nginx import nginx_with

from ..apps.texts import echo
from .crowd import Crowd
from .endings import Interrupted, by_reload, check_clean_ends
from .lasting import SYNC, Lasting, check_detached, with_gunicorn

HTTP = """
    upstream kept {{ server unix:{upstream}; keepalive 8; }}
    server {{
        listen unix:{folder}/front1.0;
        # nginx's defaults: HTTP/1.0 to the upstream.
        location / {{ proxy_pass http://kept; }}
    }}
    server {{
        listen unix:{folder}/front1.1;
        location / {{ proxy_pass http://kept; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
"""


@pytest.mark.parametrize(("version", "count"), [("1.0", 90), ("1.1", 300)])
def test_clients_connect_leave_get_a_reconnection_time_and_miss_no_event(
    version: str,
    count: int,
    serve: Callable[..., Lasting],
    crowd_of: Callable[..., Crowd],
    publish: Callable[..., Publisher],
    tmp_path: Path,
):
    server = serve(replace(with_gunicorn("sync", *SYNC), transport="unix"), "sqlite")
    folder = tmp_path / "n"
    folder.mkdir()
    with nginx_with(folder, HTTP.format(folder=folder, upstream=server.address), connections=3 * count + 64):
        server.front = str(folder / f"front{version}")
        interrupted = Interrupted(server, crowd_of, publish, count)
        crowd = interrupted.crowd
        staying = count * 2 // 3
        leaving = crowd.clients[staying:]
        for number, client in enumerate(leaving):
            client.gone = True
            client.leave(("fin", "rst")[number % 2])
        del crowd.clients[staying:]
        crowd.until(lambda: len(server.state()["streams"]) == staying, "their leaving is seen")
        # A connection that brought a stream is not one that nginx asks for anything else on.
        answers: list[bytes] = []
        crowd.call(iter([(f"/echo?number={number}&size=20000", answers.append) for number in range(50)]))
        crowd.hang_up()
        assert answers == [echo(number, 20_000) for number in range(len(answers))]
        check_detached(server, staying)
        by_reload(interrupted)
        interrupted.check()
        check_clean_ends(crowd.clients)
