"""What a keeper reports, with whom it works together, and what forks of a worker leave alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

from tests.apps.line import Line
from tests.live.channels.processes import await_that
from tests.redis_server import lasting_port
from tests.servers import ROOT

from .keepers import KeeperProcess
from .site import ALL, Site


def test_the_state_is_printed_as_json_and_metrics_are_served(site: Site) -> None:
    port = lasting_port()
    site.keeper = KeeperProcess(site.folder / "k", site.broker, "--metrics", f"127.0.0.1:{port}")
    site.start_keeper()
    workers = site.workers("--workers", "1").start()
    site.follow(workers, 3)
    await_that(lambda: site.keeper.held() == 3, "the keeper has all clients")
    site.followers[0].stop()
    await_that(lambda: site.keeper.held() == 2, "one has left")
    command = [sys.executable, "-m", "ssesync", "keeper", "--status", "--bind", site.keeper.path]
    status = json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=60).stdout)
    assert (status["pid"], status["opened"], status["closed"]) == (site.keeper.pid, 3, {"client_gone": 1})
    assert [each["name"] for each in status["streams"]] == ["/events"] * 2
    assert {each["tier"] for each in status["streams"]} == {"detached"}
    assert status["broker"]["subscribers"] == 2
    keeper = status["keeper"]
    assert (keeper["socket"], keeper["stopping"], keeper["taken"]) == (site.keeper.path, False, 3)
    assert keeper["max_streams"] > 100
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=90) as response:
        metrics = response.read().decode().splitlines()
    assert 'ssesync_streams_open{tier="detached"} 2.0' in metrics
    assert 'ssesync_streams_closed_total{reason="client_gone"} 1.0' in metrics
    assert workers.state()["closed"] == {"transferred": 3}
    # The next keeper has the same command, and gets the address when this one has ended.
    following = KeeperProcess(site.folder / "k", site.broker, "--metrics", f"127.0.0.1:{port}", "--replace")
    site.stack.callback(following.stop)
    following.start()
    assert site.keeper.process is not None
    assert site.keeper.process.wait(90) == 0

    def are_served() -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=90) as new,
        ):
            return b'ssesync_streams_open{tier="detached"} 2.0' in new.read()
        return False

    await_that(are_served, "the next keeper serves the metrics")


def test_a_keeper_of_another_version_is_used_if_both_have_a_version_in_common(site: Site) -> None:
    site.keeper = KeeperProcess(site.folder / "k", site.broker, versions=(2, 2))
    site.start_keeper()
    workers = site.workers("--workers", "1").start()
    publisher = site.publish()
    site.follow(workers, 3)
    await_that(lambda: "can't be used" in workers.log(), "the other version is logged")
    assert "versions" in workers.log()
    assert workers.held() == 3
    site.keeper.stop()
    site.keeper = KeeperProcess(site.folder / "k", site.broker, versions=(2, 1))
    site.start_keeper()
    await_that(lambda: site.keeper.held() == 3, "the keeper has all clients")
    site.check(publisher)


def test_forks_of_a_worker_leave_the_keeper_and_its_clients_alone(site: Site) -> None:
    site.start_keeper()
    workers = site.workers("--workers", "1", "--preload", TESTS_USE_EARLY="1").start()
    publisher = site.publish()
    site.follow(workers, 4)
    await_that(lambda: site.keeper.held() == 4, "the keeper has all clients")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        child = int(workers.fetch(f"/fork?how=fork&line={listener.getsockname()[1]}"))
        with Line(listener.accept()[0]) as line:
            assert (line.hear() or {})["pid"] == child
            site.follow(workers, 4)
            await_that(lambda: site.keeper.held() == 8, "the keeper has all clients")
            line.say(do="exit handlers")
            assert (line.hear() or {})["done"]
    site.follow(workers, 2)
    await_that(lambda: site.keeper.held() == 10, "the keeper has all clients")
    site.check(publisher)


def test_with_redis_the_clients_outlive_their_workers(redis_site: Site) -> None:
    site = redis_site
    site.start_keeper()
    workers = site.workers("--workers", "2").start()
    publisher = site.publish()
    site.follow(workers, 12)
    await_that(lambda: site.keeper.held() == 12, "the keeper has all clients")
    for pid in workers.workers():
        os.kill(pid, signal.SIGKILL)
    await_that(lambda: len(workers.workers()) == 2, "there are new workers")
    site.follow(workers, 4)
    await_that(lambda: site.keeper.held() == 16, "the keeper has all clients")
    await_that(lambda: workers.fetch(f"/count?channel={ALL[0]}") == b"8", "they are counted")
    site.check(publisher)
