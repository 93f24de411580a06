"""Real proxies in front of a server, with the settings that docs/guide/proxies.md shows, and with their defaults."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.live.detached.kinds import Server
from tests.programs import find_program
from tests.redis_server import lasting_port
from tests.servers import ROOT, Certificate, Wire, eventually

from .http2 import Http2

PAGE = ROOT / "docs" / "guide" / "proxies.md"
#: Seconds of silence until a proxy gives up, where the page has 75: no test waits so long.
PATIENCE = 3


def settings(name: str) -> str:
    """What the page shows for a proxy."""
    match = re.search(
        rf"<!-- proxy: {name} -->\n+```\w+\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert match is not None, f"the page has no settings for {name}"
    return match[1]


@dataclass
class Place:
    """Where one proxy is, what it keeps there, and what is behind it."""

    folder: Path
    upstream: int
    #: For HTTP/1.1 without TLS, and for TLS.
    plain: int
    secure: int

    def fill(self, text: str) -> str:
        """Put this place into the settings of the page."""
        for shown, real in {
            "127.0.0.1:8000": f"127.0.0.1:{self.upstream}",
            '"8000"': f'"{self.upstream}"',
            "75s": f"{PATIENCE}s",
            "ProxyTimeout 75": f"ProxyTimeout {PATIENCE}",
            "/etc/ssl/example.pem": f"{self.folder}/both.pem",
            "/etc/ssl/example.key": f"{self.folder}/both.pem",
        }.items():
            text = text.replace(shown, real)
        return text

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)


def nginx(place: Place) -> list[str]:
    """nginx has its temporary files here, and no other user's processes. It compresses what it may."""
    site = place.fill(settings("nginx")).replace("listen 443", f"listen 127.0.0.1:{place.secure}")
    temporary = "".join(
        f"    {kind}_temp_path {place.folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = place.write(
        "nginx.conf",
        f"daemon off;\nmaster_process off;\npid {place.folder}/pid;\nerror_log {place.folder}/error.log;\nevents {{}}\n"
        f"http {{\n    access_log off;\n    gzip on;\n    gzip_types text/event-stream;\n{temporary}{site}}}\n",
    )
    return [find_program("nginx", "nginx-light"), "-p", str(place.folder), "-c", path]


def haproxy(place: Place) -> list[str]:
    """It compresses what it may."""
    site = place.fill(settings("haproxy"))
    site = site.replace("bind :80\n", f"bind 127.0.0.1:{place.plain}\n")
    site = site.replace("bind :443", f"bind 127.0.0.1:{place.secure}")
    site = site.replace("mode http\n", "mode http\n    compression algo gzip\n    compression type text/event-stream\n")
    return [find_program("haproxy", "haproxy"), "-db", "-f", place.write("haproxy.cfg", site)]


def haproxy_by_default(place: Place) -> list[str]:
    """What Debian's configuration sets, and no more."""
    text = (
        "defaults\n    mode http\n    timeout connect 5s\n    timeout client 50s\n    timeout server 50s\n"
        f"listen all\n    bind 127.0.0.1:{place.plain}\n    server app 127.0.0.1:{place.upstream}\n"
    )
    return [find_program("haproxy", "haproxy"), "-db", "-f", place.write("haproxy.cfg", text)]


def apache(place: Place) -> list[str]:
    modules = "mpm_event", "authz_core", "proxy", "proxy_http", "ssl", "http2"
    site = place.fill(settings("apache")).replace("*:443", f"*:{place.secure}")
    loaded = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in modules)
    # As root it wants another user; it may be started by any.
    user = "User nobody\nGroup nogroup\n" if os.geteuid() == 0 else ""
    text = (
        f"ServerName localhost\nDefaultRuntimeDir {place.folder}\nPidFile {place.folder}/pid\n"
        f"ErrorLog {place.folder}/error.log\n"
        f"{loaded}{user}Listen 127.0.0.1:{place.secure}\nSSLSessionCache none\n"
        f"StartServers 1\nServerLimit 1\nThreadsPerChild 25\nMaxRequestWorkers 25\n{site}"
    )
    return [find_program("apache2", "apache2-bin"), "-f", place.write("apache.conf", text), "-DFOREGROUND"]


def varnish(place: Place) -> list[str]:
    """It compresses what it may. Requests that the page's rule does not name see its defaults."""
    text = place.fill(settings("varnish")) + "\nsub vcl_backend_response {\n    set beresp.do_gzip = true;\n}\n"
    return [
        find_program("varnishd", "varnish"), "-F", "-j", "none", "-T", "none", "-n", str(place.folder / "work"),
        "-a", f"127.0.0.1:{place.plain}", "-f", place.write("site.vcl", text), "-s", "malloc,8m", "-p", "vsl_space=1m",
        "-p", "thread_pools=1", "-p", "thread_pool_min=5", "-p", f"pipe_timeout={PATIENCE}",
        "-p", f"between_bytes_timeout={PATIENCE}",
    ]  # fmt: skip


def caddy(place: Place) -> list[str]:
    """It compresses what it may, and does not ask anybody for a certificate."""
    pair = f"{place.folder}/both.pem {place.folder}/both.pem"
    site = place.fill(settings("caddy")).replace(
        "example.org {\n", f"https://:{place.secure} {{\n    tls {pair}\n    encode gzip\n"
    )
    text = f"{{\n    admin off\n    auto_https off\n}}\n{site}"
    path = place.write("Caddyfile", text)
    return [find_program("caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", path]


@dataclass(frozen=True)
class Kind:
    """A proxy, and what it speaks to a client."""

    command: Callable[[Place], list[str]]
    secure: bool = True
    http2: bool = True
    #: Gives up a connection that is silent for :data:`PATIENCE`.
    impatient: bool = True


KINDS = {
    "nginx": Kind(nginx),
    "haproxy": Kind(haproxy),
    "haproxy by default": Kind(haproxy_by_default, secure=False, http2=False, impatient=False),
    "apache": Kind(apache),
    "varnish": Kind(varnish, secure=False, http2=False),
    "caddy": Kind(caddy, impatient=False),
}


class Front:
    """A running proxy. It is ready after :meth:`wait`."""

    def __init__(self, name: str, folder: Path, server: Server, certificate: Certificate) -> None:
        self.name, self.kind, self.server = name, KINDS[name], server
        self._place = Place(folder, server.port, lasting_port(), lasting_port())
        options = certificate.options
        (folder / "both.pem").write_text("".join(Path(options[each]).read_text() for each in (1, 3)))
        home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        with (folder / "log").open("wb") as log:
            # Its processes are a group, which ends together: Apache's and Varnish's wait for their clients otherwise.
            self.process = subprocess.Popen(
                self.kind.command(self._place), cwd=folder, env=os.environ | home, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def wait(self) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, f"{self.name} ended:\n{self.log()}"
            with contextlib.suppress(OSError, EOFError, ValueError), self.connect() as wire:
                return wire.get("/plain").status == 200
            return False

        assert eventually(answers), f"{self.name} did not come up:\n{self.log()}"

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self._place.folder.glob("*log")))

    @property
    def url(self) -> str:
        return (
            f"https://127.0.0.1:{self._place.secure}" if self.kind.secure else f"http://127.0.0.1:{self._place.plain}"
        )

    def connect(self, *, plain: bool = False) -> Wire:
        """Connect by HTTP/1.1: over TLS, where the page's settings have it.

        :param plain: without TLS all the same.
        """
        return Wire(self._socket("http/1.1", secure=self.kind.secure and not plain))

    def connect_http2(self) -> Http2:
        return Http2(self._socket("h2", secure=True))

    def _socket(self, protocol: str, *, secure: bool) -> socket.socket:
        port = self._place.secure if secure else self._place.plain
        plain = socket.create_connection(("127.0.0.1", port), timeout=5)
        if not secure:
            return plain
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols([protocol])
        try:
            return context.wrap_socket(plain, server_hostname="127.0.0.1")
        except BaseException:
            plain.close()
            raise

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
