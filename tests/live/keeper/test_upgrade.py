"""A keeper is replaced by the next one, and each of both is killed or stopped meanwhile: workers and clients go on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ssesync.keeper.status import ask_status
from tests.live.channels.processes import await_that
from tests.servers import ROOT

from .site import Site

#: The step at which the next process stops itself, which process then gets which signal, which one is the keeper
#: in the end, and whether the clients have to connect again. ``None``: only if they were not sent before the end.
CASES: list[tuple[str, str, signal.Signals, str, bool | None]] = [
    ("offered", "next", signal.SIGKILL, "running", False),
    ("offered", "next", signal.SIGSTOP, "running", False),
    ("offered", "running", signal.SIGSTOP, "running", False),
    ("offered", "running", signal.SIGKILL, "next", True),
    ("entered", "next", signal.SIGKILL, "running", False),
    ("entered", "next", signal.SIGSTOP, "next", False),
    ("entered", "running", signal.SIGSTOP, "next", False),
    ("entered", "running", signal.SIGKILL, "next", None),
    ("entered", "next", signal.SIGTERM, "running", False),
    ("prepared", "next", signal.SIGKILL, "running", False),
    ("prepared", "next", signal.SIGSTOP, "next", False),
    ("prepared", "running", signal.SIGSTOP, "next", False),
    ("prepared", "running", signal.SIGKILL, "next", False),
    ("acknowledged", "next", signal.SIGSTOP, "next", False),
]


class Keepers:
    """The keepers of a site: the one that runs, and the next ones."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.path = site.keeper.path
        self.log = site.folder / "keepers.log"
        self.log.touch()
        self.running = self.start(await_ready=True)

    def start(self, *options: str, step: str = "never", await_ready: bool = False) -> subprocess.Popen[bytes]:
        """Start one that stops itself at a step."""
        before = self.log.read_text().count("READY")
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "tests.live.keeper.stepping", step, "keeper", "--bind", self.path,
                    "--spread", "0.5", *options,
                ],
                cwd=ROOT,
                env=os.environ | {"SSESYNC_BROKER": self.site.broker},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        self.site.stack.callback(self.end, process)
        if await_ready:
            await_that(lambda: self.log.read_text().count("READY") > before, "the keeper is ready")
        return process

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()

    def status(self) -> dict[str, Any]:
        """What the process says that accepts at the path."""
        return ask_status(self.path)

    def upgrade(self, **options: Any) -> None:
        """Replace the keeper that runs, which must exit with 0."""
        before, self.running = self.running, self.start("--replace", **options)
        assert before.wait(90) == 0, self.log.read_text()
        await_that(lambda: self.is_settled(self.running), "the next keeper has all")

    def is_settled(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether a process is the keeper, and no other one is."""
        with contextlib.suppress(OSError):
            status = self.status()
            return bool(status["pid"] == process.pid and not status["keeper"]["upgrading"])
        return False


def is_stopped(process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_the_next_keeper_takes_all_clients_and_those_that_come_meanwhile(site: Site) -> None:
    keepers = Keepers(site)
    workers = site.workers("--workers", "2").start()
    publisher = site.publish()
    site.follow(workers, 24)
    await_that(lambda: len(keepers.status()["streams"]) == 24, "the keeper has all clients")
    for turn in range(3):
        keepers.upgrade()
        report = keepers.status()["keeper"]["before"]
        assert (report["result"], report["moved"]) == ("done", 24 + 2 * turn)
        site.follow(workers, 2)
        await_that(lambda: len(keepers.status()["streams"]) == 26 + 2 * turn, "it has those that came since")  # noqa: B023
    site.check(publisher)
    assert "Traceback" not in keepers.log.read_text() + workers.log()


def test_a_second_keeper_is_an_error_and_so_is_a_second_one_that_replaces(site: Site) -> None:
    site.start_keeper()  # its waits are not short
    keepers = Keepers.__new__(Keepers)
    keepers.site, keepers.path, keepers.log = site, site.keeper.path, site.folder / "keepers.log"
    keepers.log.touch()
    assert keepers.start().wait(90) == 1
    assert "another process listens at" in keepers.log.read_text()
    first = keepers.start("--replace", step="offered")
    await_that(lambda: is_stopped(first), "the first one waits")
    assert keepers.start("--replace").wait(90) == 1
    assert "another process is replacing it" in keepers.log.read_text()
    first.send_signal(signal.SIGCONT)
    assert site.keeper.process is not None
    assert site.keeper.process.wait(90) == 0
    await_that(lambda: keepers.is_settled(first), "the first one is the keeper")


def test_a_service_manager_is_notified_of_an_upgrade_in_the_background(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(60)
        manager.bind(str(site.folder / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(site.folder / "notify"))
        monkeypatch.setenv("SSESYNC_BROKER", site.broker)
        site.start_keeper()
        assert manager.recv(1000).startswith(b"READY=1\nSTATUS=")
        command = [sys.executable, "-m", "ssesync", "keeper", "--bind", site.keeper.path, "--background"]
        assert subprocess.run(command, cwd=ROOT, timeout=60, check=False).returncode == 1  # one runs already
        assert subprocess.run([*command, "--replace"], cwd=ROOT, timeout=60, check=False).returncode == 0
        pid = ask_status(site.keeper.path)["pid"]
        try:
            assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(1000) == b"MAINPID=%d" % pid
            assert manager.recv(1000).startswith(b"READY=1\n")
            assert site.keeper.process is not None
            assert site.keeper.process.wait(90) == 0
        finally:
            os.kill(pid, signal.SIGTERM)
        assert manager.recv(1000) == b"STOPPING=1"


def test_whichever_process_is_killed_or_stopped_loses_no_client_of_the_other_one(site: Site) -> None:
    keepers = Keepers(site)
    workers = site.workers("--workers", "1").start()
    publisher = site.publish("--no-end")
    followers = site.follow(workers, 6)
    for number, case in enumerate(CASES):
        step, side, signum, keeper, comes_back = case
        await_that(lambda: len(keepers.status()["streams"]) == 6 + number, f"all are there before {case}")  # noqa: B023
        connections = [len(each.workers) for each in site.followers]
        running, following = keepers.running, keepers.start("--replace", step=step)
        await_that(lambda: is_stopped(following), f"it stops: {case}")  # noqa: B023
        disturb(running, following, side, signum, publisher)
        keepers.running = running if keeper == "running" else following
        await_that(lambda: keepers.is_settled(keepers.running), f"there is one keeper: {case}")
        other = following if keeper == "running" else running
        codes = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 0, signal.SIGSTOP: int(keeper == "running")}
        assert other.wait(90) == codes[signum], case
        site.follow(workers, 1)  # the path works
        await_that(lambda: len(keepers.status()["streams"]) == 7 + number, f"it has all clients: {case}")  # noqa: B023
        again = {len(each.workers) - before for each, before in zip(site.followers, connections, strict=False)}
        # A client for which the log was just being read was not in the batch that was sent before the end.
        assert again <= ({0, 1} if comes_back is None else {int(comes_back)}), case
    site.check(publisher, connections=None)
    assert len(followers) == 6
    assert "Traceback" not in keepers.log.read_text() + workers.log()


def disturb(
    running: subprocess.Popen[bytes], following: subprocess.Popen[bytes], side: str, signum: int, publisher: Any
) -> None:
    """Kill or stop one of both, and let the other one go on for longer than it waits for an answer."""
    disturbed = running if side == "running" else following
    disturbed.send_signal(signum)
    if side == "running" or signum == signal.SIGTERM:
        following.send_signal(signal.SIGCONT)
    if signum == signal.SIGSTOP:
        count = len(publisher.published)
        publisher.wait_for(count + 130)  # of a hundred a second
        disturbed.send_signal(signal.SIGCONT)
