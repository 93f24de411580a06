"""The limit of streams for each address behind a real nginx."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Kind, Server, Wire, eventually, running

from .kinds import OPENING, gunicorn
from .nginx import nginx_with

KIND = Kind(
    "addressed",
    gunicorn("--worker-class", "gthread", "--threads", "20", app="limited"),
    environment={"DJANGO_SETTINGS_MODULE": "tests.apps.django_project.settings.limited"},
)
WARNING = "which sends X-Forwarded-For"

HTTP = """
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
"""


class Front:
    """nginx before a server: clients come to it from addresses of their own."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self._port = port

    def connect(self, address: str) -> Wire:
        return Wire(socket.create_connection(("127.0.0.1", self._port), source_address=(address, 0)))

    def answers(self) -> bool:
        try:
            with self.connect("127.0.0.1") as wire:
                return wire.get("/plain").status == 200
        except OSError:
            return False


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "nginx").mkdir()
    with running(KIND, tmp_path / "server") as server:
        with nginx_with(tmp_path / "nginx", HTTP.format(port=port, upstream=server.port)):
            front = Front(server, port)
            assert eventually(front.answers)
            yield front


@pytest.mark.skipif(not Path("/proc/sys/net").exists(), reason="all of 127.0.0.0/8 is the machine's own on Linux alone")
@pytest.mark.parametrize("app", ["flask", "django"])
def test_behind_a_proxy_all_clients_share_one_limit_with_a_warning_until_the_address_is_set_from_its_header(
    front: Front, app: str
) -> None:
    with contextlib.ExitStack() as stack:
        for address in ("127.0.0.2", "127.0.0.3"):
            wire = stack.enter_context(front.connect(address))
            response = wire.get(f"/{app}_mended/limited")
            assert response.status == 200
            response.expect(OPENING)
            assert stack.enter_context(front.connect(address)).get(f"/{app}_mended/limited").status == 503
        assert WARNING not in front.server.log()
    with contextlib.ExitStack() as stack:
        assert stack.enter_context(front.connect("127.0.0.2")).get(f"/{app}/limited").status == 200
        for _ in range(2):
            assert stack.enter_context(front.connect("127.0.0.3")).get(f"/{app}/limited").status == 503
        assert front.server.logs(WARNING)
        assert front.server.log().count(WARNING) == 1
