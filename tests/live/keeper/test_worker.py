"""Workers pass their clients on to a keeper: nothing is lost or doubled, and no connection ends."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import requests

from ssesync import open_broker
from tests.live.channels.followers import Follower
from tests.live.channels.processes import await_that

from .keepers import KeeperProcess
from .site import ALL, Site

THREADS = ("--workers", "2", "--worker-class", "gthread")
SYNC = ("--workers", "2", "--worker-class", "sync")


@pytest.mark.parametrize(
    "options", [pytest.param(THREADS, id="gthread"), pytest.param(SYNC, id="sync", marks=pytest.mark.matrix)]
)
def test_the_keeper_holds_clients_over_reloads_crashes_and_a_restart_from_another_folder(
    site: Site, options: tuple[str, ...]
) -> None:
    site.start_keeper()
    workers = site.workers(*options).start()
    publisher = site.publish()
    site.follow(workers, 30)
    await_that(lambda: site.keeper.held() == 30, "the keeper has all clients")
    before = set(workers.workers())
    workers.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    await_that(lambda: len(now := set(workers.workers())) == 2 and not now & before, "the workers are replaced")
    site.follow(workers, 10)
    await_that(lambda: site.keeper.held() == 40, "the keeper has all clients")
    for pid in workers.workers():
        os.kill(pid, signal.SIGKILL)
    await_that(lambda: len(workers.workers()) == 2 and workers.fetch("/plain") == b"plain", "there are new workers")
    site.follow(workers, 4)
    await_that(lambda: site.keeper.held() == 44, "the keeper has all clients")
    workers.stop()
    workers.cwd = site.folder
    workers.start()
    site.follow(workers, 4)
    await_that(lambda: site.keeper.held() == 48, "the keeper has all clients")
    site.check(publisher)
    status = site.keeper.status()
    assert status["opened"] == 48
    assert status["broker"]["subscribers"] == 48
    assert "Traceback" not in workers.log() + site.keeper.log()


def test_without_a_keeper_workers_serve_their_clients_and_move_them_when_it_comes(site: Site) -> None:
    workers = site.workers("--workers", "1").start()
    publisher = site.publish()
    site.follow(workers, 8)
    await_that(lambda: "can't be used" in workers.log(), "the absent keeper is logged")
    assert workers.held() == 8
    site.start_keeper()
    await_that(lambda: site.keeper.held() == 8, "the keeper has all clients")
    assert workers.held() == 0
    site.follow(workers, 2)
    await_that(lambda: site.keeper.held() == 10, "the keeper has all clients")
    site.check(publisher)
    assert workers.log().count("can't be used") == workers.log().count("takes clients again") == 1


def test_a_worker_that_stops_moves_its_clients_to_a_keeper_that_has_come_back(site: Site) -> None:
    workers = site.workers("--workers", "1").start()
    publisher = site.publish()
    site.start_keeper()
    site.keeper.stop()
    site.follow(workers, 8)
    await_that(lambda: "can't be used" in workers.log(), "the absent keeper is logged")
    site.keeper.start()
    workers.stop()  # before it is tried again
    assert site.keeper.held() == 8
    site.check(publisher)


def test_a_halted_keeper_stops_no_request_and_a_killed_ones_clients_resume(site: Site) -> None:
    site.start_keeper()
    workers = site.workers("--workers", "1", "--threads", "4").start()
    publisher = site.publish()
    site.follow(workers, 4)
    await_that(lambda: site.keeper.held() == 4, "the keeper has all clients")
    os.kill(site.keeper.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        options = json.dumps({"max_streams_per_key": 100})
        for _ in range(20):
            assert workers.fetch("/plain") == b"plain"
        new = [Follower(workers.url(), ALL, options=options) for _ in range(8)]
        for follower in new:
            site.stack.callback(follower.stop)
        await_that(lambda: all(each.workers for each in new), "all have connected")
        assert time.monotonic() - began < 20  # if each of the 28 waited for the keeper, it would be longer
        await_that(lambda: "can't be used" in workers.log(), "the halted keeper is logged")
        count = len(publisher.published)
        publisher.wait_for(count + 20)
        await_that(lambda: all(len(each.events) > 4 for each in new), "the worker serves its clients")
    finally:
        os.kill(site.keeper.pid, signal.SIGCONT)
    await_that(lambda: site.keeper.held() == 12, "the keeper has all clients")
    assert {len(each.workers) for each in [*site.followers, *new]} == {1}
    site.keeper.kill()
    await_that(lambda: all(len(each.workers) == 2 for each in [*site.followers, *new]), "the clients come back")
    site.keeper.start()
    await_that(lambda: site.keeper.held() == 12, "the keeper has all clients")
    site.check(publisher, connections=2)


def test_a_full_keeper_refuses_and_the_worker_keeps_the_others(site: Site) -> None:
    site.keeper = KeeperProcess(site.folder / "k", site.broker, limit=128)
    site.start_keeper()
    workers = site.workers("--workers", "1").start()
    publisher = site.publish()
    site.follow(workers, 80)
    limit = site.keeper.status()["keeper"]["max_streams"]
    assert limit < 80
    await_that(lambda: "can't be used" in workers.log(), "the full keeper is logged")
    await_that(lambda: site.keeper.held() + workers.held() == 80, "each client is held once")
    assert site.keeper.held() > limit / 2
    site.check(publisher)


def test_clients_that_stay_are_logged_with_the_reason_and_end_with_their_worker(site: Site) -> None:
    site.start_keeper()
    workers = site.workers("--workers", "1").start()
    for more in ({"on_close": "1"}, {"coalesce": "1"}, {}):
        follower = Follower(workers.url(), ALL, **more)
        site.stack.callback(follower.stop)
        await_that(lambda: follower.workers, "it has connected")  # noqa: B023
    await_that(lambda: site.keeper.held() == 1, "the keeper has the one that can be moved")
    await_that(lambda: workers.log().count("stays in this process") == 2, "the others are logged")
    assert workers.held() == 2
    for reason in ("on_close= is called in this process", "coalesce= is a function of this process"):
        assert workers.log().count(reason) == 1


def test_another_log_and_a_log_of_one_process_leave_the_clients_where_they_are(site: Site, tmp_path: Path) -> None:
    site.keeper = KeeperProcess(site.folder / "k", f"sqlite:///{tmp_path}/other.db")
    site.start_keeper()
    workers = site.workers("--workers", "1").start()
    publisher = site.publish()
    site.follow(workers, 3)
    await_that(lambda: "it is on another log" in workers.log(), "the other log is logged")
    assert (workers.held(), site.keeper.held()) == (3, 0)
    site.check(publisher)
    assert workers.log().count("it is on another log") == 1


def test_revocation_presence_overflow_and_replay_are_the_keepers(site: Site) -> None:
    site.start_keeper()
    workers = site.workers("--workers", "1").start()
    publisher = site.publish("--no-end")
    kept = site.follow(workers, 2)
    revoked = Follower(workers.url(), ALL, key="eve")
    site.stack.callback(revoked.stop)
    slow = requests.get(
        workers.url(), params=[("channel", "big"), ("options", json.dumps({"patience": 1.0, "max_pending_events": 4}))],
        stream=True, timeout=30,
    )  # fmt: skip
    site.stack.callback(slow.close)
    await_that(lambda: site.keeper.held() == 4, "the keeper has all clients")
    await_that(lambda: workers.fetch("/count?channel=a:0") == b"2", "its clients are counted")
    assert workers.held() == 0
    workers.fetch("/revoke?key=eve")
    await_that(lambda: len(revoked.workers) == 2, "the revoked client comes back")
    assert site.keeper.status()["closed"] == {"revoked": 1}
    with open_broker(site.broker) as broker:

        def slow_one_is_ended() -> bool:
            # Until then: a full queue ends its client at an event that comes after `patience`.
            for _ in range(20):
                broker.publish("big", "x" * 100_000)
            return "overflow" in site.keeper.status()["closed"]

        await_that(slow_one_is_ended, "the slow client is ended")
    back = Follower(workers.url(), ALL, last_event_id=site.start)  # replay, then the keeper
    site.stack.callback(back.stop)
    site.followers.append(back)
    await_that(lambda: site.keeper.held() == 4, "the keeper has it")
    site.check(publisher)
    assert kept[0].workers == kept[0].workers[:1]


def test_a_keeper_that_stops_ends_its_clients_over_some_seconds(site: Site) -> None:
    site.keeper = KeeperProcess(site.folder / "k", site.broker, "--spread", "2")
    site.start_keeper()
    workers = site.workers("--workers", "1").start()
    publisher = site.publish()
    site.follow(workers, 20)
    await_that(lambda: site.keeper.held() == 20, "the keeper has all clients")
    began = time.monotonic()
    site.keeper.process.terminate()  # type: ignore[union-attr]
    await_that(lambda: any(len(each.workers) > 1 for each in site.followers), "the first client comes back")
    assert site.keeper.process.wait(90) == 0  # type: ignore[union-attr]
    assert time.monotonic() - began > 1.5
    assert not Path(site.keeper.path).exists()
    await_that(lambda: all(len(each.workers) == 2 for each in site.followers), "all come back")
    site.check(publisher, connections=2)


def test_streams_of_a_key_are_counted_by_the_keeper_for_all_workers(site: Site) -> None:
    site.start_keeper()
    workers = site.workers("--workers", "2").start()
    query = [("channel", "a"), ("key", "ann"), ("options", json.dumps({"max_streams_per_key": 3}))]

    def connect() -> requests.Response:
        response = requests.get(workers.url(), params=query, stream=True, timeout=90)
        site.stack.callback(response.close)
        return response

    answers = [connect() for _ in range(8)]  # at once, for whichever worker accepts
    assert sorted(each.status_code for each in answers) == [200] * 3 + [503] * 5
    await_that(lambda: site.keeper.held() == 3, "the keeper has them")
    assert connect().status_code == 503
    next(each for each in answers if each.status_code == 200).close()
    await_that(lambda: site.keeper.held() == 2, "one has left")
    assert connect().status_code == 200


def test_several_keepers_share_the_clients(site: Site) -> None:
    second = KeeperProcess(site.folder / "k2", site.broker)
    site.stack.callback(second.stop)
    site.start_keeper()
    second.start()
    workers = site.workers("--workers", "1", keeper=f"{site.keeper.path},{second.path}").start()
    publisher = site.publish()
    site.follow(workers, 16)
    await_that(lambda: site.keeper.held() + second.held() == 16, "the keepers have all clients")
    assert min(site.keeper.held(), second.held()) > 4
    limited = json.dumps({"max_streams_per_key": 9})
    for total, key in ((19, "ann"), (22, "bob"), (25, "eve")):
        before = site.keeper.held()
        for _ in range(3):
            follower = Follower(workers.url(), ["other"], key=key, options=limited)
            site.stack.callback(follower.stop)
        await_that(lambda: site.keeper.held() + second.held() == total, "the keepers have them")  # noqa: B023
        assert site.keeper.held() - before in (0, 3), "the streams of a key are at one keeper"
    site.check(publisher)
