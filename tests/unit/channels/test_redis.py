"""The Redis broker: servers that are killed, lose what they knew, cut connections, or are full."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import trustme

from ssesync import Broker, BrokerDamaged, BrokerError, BrokerUnavailable, CloseReason, SettingsError, open_broker
from ssesync.channels.entry import CLOSED
from tests.redis_server import FORGETFUL, RedisServer, lasting_port

from .conftest import got, numbered, published, texts
from .runs.test_contract import add, append, event, final
from .test_closing import begin
from .test_contract import eventually, place
from .test_sqlite import check_a_killed_publisher, forked

DURABLE = ("--appendonly", "yes", "--save", "")


@pytest.fixture
def own_server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of the test's own, with the options of its parameter."""
    with RedisServer(tmp_path, *getattr(request, "param", FORGETFUL)) as server:
        yield server


@pytest.fixture
def broker(own_server: RedisServer) -> Iterator[Broker]:
    with open_broker(own_server.url) as broker:
        yield broker


@pytest.fixture
def admin(own_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_server.url, decode_responses=True) as client:
        yield client


@contextlib.contextmanager
def held_up(broker: Broker) -> Iterator[None]:
    """Keep the broker's listener from doing anything."""
    listener = broker._listener  # type: ignore[attr-defined]
    step, held = listener._step, threading.Event()

    def nothing(listener: object) -> None:
        held.set()
        time.sleep(0.005)

    listener._step = nothing
    assert held.wait(90)
    yield
    listener._step = step


@pytest.mark.slow
def test_five_hundred_subscribers_take_two_connections(broker: Broker, admin: redis.Redis) -> None:
    before = len(admin.client_list())
    subscriptions = [broker.subscribe(f"c{n}") for n in range(500)]
    for n in range(500):
        broker.publish(f"c{n}", str(n))
    assert [texts(each, 1) for each in subscriptions] == [[str(n)] for n in range(500)]
    assert len(admin.client_list()) - before == 2
    for each in subscriptions:
        each.close()


@pytest.mark.parametrize("own_server", [DURABLE], indirect=True)
def test_after_an_outage_subscribers_go_on_from_where_they_were(own_server: RedisServer, broker: Broker) -> None:
    (start,) = published(broker, "a", "1")
    subscription = broker.subscribe("a")
    published(broker, "a", "2")
    assert texts(subscription, 1) == ["2"]
    own_server.kill()
    with pytest.raises(BrokerUnavailable):
        broker.publish("a", "lost, and said so")
    with pytest.raises(BrokerUnavailable):
        broker.subscribe("b")
    assert subscription.get(2) is None
    assert not subscription.closed
    own_server.start()
    published(broker, "a", "3", "4")
    assert texts(subscription, 2) == ["3", "4"]
    with broker.subscribe("a", last_event_id=start) as again:
        assert texts(again, 3) == ["2", "3", "4"]
    subscription.close()


@pytest.mark.slow
def test_what_is_published_while_the_listener_is_cut_off_comes_when_it_is_back(
    own_server: RedisServer, broker: Broker, admin: redis.Redis
) -> None:
    subscription = broker.subscribe("a", patience=60)
    count = 0
    for _ in range(20):
        for client in admin.client_list():
            if client["cmd"].startswith("xread"):
                admin.client_kill_filter(_id=client["id"])
        published(broker, "a", *numbered(10, count))
        count += 10
        time.sleep(0.02)
    assert texts(subscription, count) == numbered(count)
    assert subscription.get(0) is None
    subscription.close()


def test_a_revoke_arrives_although_events_beside_it_are_lost(own_server: RedisServer, broker: Broker) -> None:
    with open_broker(own_server.url, max_events=5) as other:
        busy, ours = broker.subscribe("busy"), broker.subscribe("quiet", key="ada")
        with held_up(broker):
            published(other, "busy", *numbered(10))
            other.revoke("ada")
            published(other, "busy", *numbered(10))
        deadline = time.monotonic() + 90
        while ours.reason is None:
            assert time.monotonic() < deadline, "the right was not taken back"
            time.sleep(0.01)
        assert ours.reason is CloseReason.REVOKED
        assert got(busy, 1)[0].json() == {"reason": "trimmed"}
        busy.close()


@pytest.mark.slow
@pytest.mark.parametrize("own_server", [DURABLE], indirect=True)
def test_a_publisher_that_is_killed_leaves_no_gap_and_no_half_event(own_server: RedisServer, broker: Broker) -> None:
    subscription = broker.subscribe("a", patience=60)
    check_a_killed_publisher(own_server.url, broker, subscription)
    subscription.close()


def test_a_server_that_comes_back_empty_is_another_log(own_server: RedisServer, broker: Broker) -> None:
    (old,) = published(broker, "a", "1")
    subscription = broker.subscribe("a")
    own_server.kill()
    own_server.start()
    (reset,) = got(subscription, 1)
    assert (reset.type, reset.json()) == ("reset", {"reason": "restarted"})
    (new,) = published(broker, "a", "2")
    assert place(new)[0] == place(reset.id)[0] != place(old)[0]
    assert texts(subscription, 1) == ["2"]
    with broker.subscribe("a", last_event_id=old) as again:
        assert got(again, 1)[0].json() == {"reason": "unknown"}
    subscription.close()


def test_a_log_that_is_flushed_is_another_log(broker: Broker, admin: redis.Redis) -> None:
    published(broker, "a", "1")
    subscription = broker.subscribe("a")
    admin.flushall()
    published(broker, "a", "2")
    assert got(subscription, 1)[0].json() == {"reason": "restarted"}
    subscription.close()


def test_of_a_log_whose_key_was_evicted_nothing_is_left(broker: Broker, admin: redis.Redis) -> None:
    (old,) = published(broker, "a", "1")
    admin.delete("{ssesync}:meta")
    (new,) = published(broker, "b", "2")
    assert place(new)[0] != place(old)[0]
    assert admin.keys("*:a") == []
    with broker.subscribe("a", "b", last_event_id=old) as subscription:
        assert got(subscription, 1)[0].json() == {"reason": "unknown"}


def test_a_server_that_has_lost_its_latest_events_gives_out_no_number_again(
    own_server: RedisServer, broker: Broker, admin: redis.Redis
) -> None:
    (known,) = published(broker, "a", "1")
    admin.save()
    (lost,) = published(broker, "a", "2")
    subscription = broker.subscribe("a")
    with open_broker(own_server.url) as other:
        with held_up(broker):
            own_server.kill()
            own_server.start()
            (later,) = published(other, "a", "3")
            assert place(known)[0] == place(later)[0]
            assert place(later)[1] > place(lost)[1]
            with other.subscribe("a", last_event_id=lost) as again:
                assert got(again, 1)[0].json() == {"reason": "unknown"}
        assert got(subscription, 1)[0].json() == {"reason": "restarted"}
        published(other, "a", "4")
        assert texts(subscription, 1) == ["4"]
    subscription.close()


def test_a_listener_that_finds_its_events_lost_begins_a_new_epoch(
    own_server: RedisServer, broker: Broker, admin: redis.Redis
) -> None:
    published(broker, "a", "1")
    admin.save()
    (lost,) = published(broker, "a", "2")
    subscription = broker.subscribe("a")
    own_server.kill()
    own_server.start()
    assert got(subscription, 1)[0].json() == {"reason": "restarted"}
    (later,) = published(broker, "a", "3")
    assert place(later)[0] != place(lost)[0]
    assert texts(subscription, 1) == ["3"]
    subscription.close()


def test_a_run_of_which_the_server_has_lost_events_is_interrupted(
    own_server: RedisServer, broker: Broker, admin: redis.Redis
) -> None:
    for name in ("gap", "end", "whole"):
        add(broker, name)
        append(broker, event(1, name))
    admin.save()
    for name in ("gap", "end"):
        append(broker, event(2, name))
    own_server.kill()
    own_server.start()
    assert append(broker, event(3, "gap"), final(name="gap")._replace(number=4)) == [CLOSED] * 2
    assert append(broker, final(name="gap")) == [CLOSED]
    assert append(broker, final(name="end")._replace(number=3)) == [CLOSED]
    assert append(broker, event(2, "whole"), final(name="whole")._replace(number=3)) > [0, 0]
    found = broker._abandoned()
    assert sorted(each.name for each in found) == ["end", "gap"]
    assert append(broker, *(final("interrupted", name=each.name, owner=each.owner) for each in found)) > [0, 0]
    assert begin(broker, "gap") == begin(broker, "end") == ["1", "interrupted"]
    assert begin(broker, "whole") == ["1", "2", "done"]
    assert broker._abandoned() == []


@pytest.mark.slow
def test_a_process_that_was_away_for_longer_than_the_index_misses_nothing(own_server: RedisServer) -> None:
    with open_broker(own_server.url, index_size=10) as broker:
        subscription = broker.subscribe("a", "b", patience=60)
        with held_up(broker):
            for n in range(600):
                broker.publish("ab"[n % 2], str(n))
        assert texts(subscription, 600) == numbered(600)
        published(broker, "a", "live")
        assert texts(subscription, 1) == ["live"]
        subscription.close()


@pytest.mark.parametrize("own_server", [("--maxmemory", "3mb", "--maxmemory-policy", "noeviction", "--save", "")],
                         indirect=True)  # fmt: skip
def test_a_server_without_memory_is_an_error_of_publish(broker: Broker, admin: redis.Redis) -> None:
    with pytest.raises(BrokerUnavailable, match="accepts no writes"):
        [broker.publish(f"c{n}", "x" * 50_000) for n in range(200)]
    # Far too little from now on: what it needs for connections goes up and down.
    admin.config_set("maxmemory", "1mb")
    for action in (lambda: add(broker), lambda: broker.publish("c0", "x" * 500_000, final=True)):
        with pytest.raises(BrokerUnavailable, match="accepts no writes"):
            action()
    assert broker._find_run("r") is None


def test_keys_of_another_type_are_an_error(broker: Broker, admin: redis.Redis) -> None:
    admin.set("{ssesync}:meta", "something else")
    with pytest.raises(BrokerDamaged, match="changed the broker's keys"):
        broker.publish("a", "x")


def test_a_user_with_rights_to_the_keys_alone_is_enough(own_server: RedisServer, admin: redis.Redis) -> None:
    admin.execute_command(
        "ACL", "SETUSER", "app", "on", ">secret", "~{ssesync}:*", "-@all", "+@read", "+@write", "+@connection",
        "+evalsha", "+script|load", "+time", "-@dangerous",
    )  # fmt: skip
    url = own_server.url.replace("redis://", "redis://app:secret@")
    with open_broker(url) as broker:
        subscription = broker.subscribe("a")
        published(broker, "a", "1")
        assert texts(subscription, 1) == ["1"]
        assert broker.subscriber_count("a", local=True) == 1
        broker.revoke("nobody")
        subscription.close()
        broker.publish("a", "2", final=True)
        add(broker)
        assert append(broker, event(1), final()) > [0, 0]
        assert begin(broker, "a", "r") == ["1", "done"]
        assert broker.channel_of(broker.position()) == "r"
        assert broker._abandoned() == []
    with open_broker(url.replace("secret", "wrong")) as broker, pytest.raises(BrokerError) as caught:
        broker.publish("a", "1")
    assert "wrong" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("own_server", [("--cluster-enabled", "yes", "--save", "")], indirect=True)
def test_a_cluster_accepts_it_as_all_keys_are_of_one_slot(own_server: RedisServer, admin: redis.Redis) -> None:
    admin.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
    eventually(lambda: "ok" in str(admin.execute_command("CLUSTER", "INFO")).partition("cluster_state")[2][:6])
    with open_broker(own_server.url) as broker:
        (start,) = published(broker, "a", "1")
        with broker.subscribe("a", patterns=["b*"], last_event_id=start) as subscription:
            published(broker, "b1", "2")
            assert texts(subscription, 1) == ["2"]
        add(broker)
        assert append(broker, event(1), final()) > [0, 0]
        assert begin(broker, "r") == ["1", "done"]
    with (
        redis.RedisCluster.from_url(own_server.url) as client,
        open_broker("redis://", client=client) as broker,
        broker.subscribe("a") as subscription,
    ):
        published(broker, "a", "3")
        assert texts(subscription, 1) == ["3"]


@pytest.mark.slow
def test_tls_will_do(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    for name, blob in (("ca", authority.cert_pem), ("key", certificate.private_key_pem),
                       ("cert", certificate.cert_chain_pems[0])):  # fmt: skip
        blob.write_to_path(str(tmp_path / name))
    port = lasting_port()
    server = RedisServer(
        tmp_path, "--save", "", "--tls-port", str(port), "--tls-cert-file", "cert", "--tls-key-file", "key",
        "--tls-ca-cert-file", "ca", "--tls-auth-clients", "no",
    )  # fmt: skip
    server.start()
    try:
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path}/ca"
        with open_broker(url) as broker, broker.subscribe("a") as subscription:
            published(broker, "a", "x")
            assert texts(subscription, 1) == ["x"]
        with (
            open_broker(f"rediss://localhost:{port}/0") as broker,
            pytest.raises(BrokerUnavailable, match=r"(?i)certificate"),
        ):
            broker.publish("a", "x")
    finally:
        server.kill()


def test_a_client_of_the_users_own_is_used_and_left_open(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        with open_broker("redis://", client=client, prefix=uuid.uuid4().hex) as broker:
            subscription = broker.subscribe("a")
            published(broker, "a", "1")
            assert texts(subscription, 1) == ["1"]
            subscription.close()
        assert client.ping()
    with (
        redis.Redis.from_url(redis_server.url, decode_responses=True) as client,
        pytest.raises(SettingsError, match="decode_responses"),
    ):
        open_broker("redis://", client=client)


def test_a_log_is_one_prefix_and_another_prefix_another_log(redis_server: RedisServer) -> None:
    one, other = (open_broker(redis_server.url, prefix=uuid.uuid4().hex) for _ in range(2))
    with one, other, other.subscribe("a") as subscription:
        published(one, "a", "x")
        published(other, "a", "y")
        assert texts(subscription, 1) == ["y"]


def test_options_of_redis_py_may_stand_in_the_url_or_be_given_by_name(redis_server: RedisServer) -> None:
    url = f"{redis_server.url}?socket_timeout=0.5&prefix={uuid.uuid4().hex}&max_events=5"
    with open_broker(url, client_name="ours") as broker:
        kwargs = broker._link.client.get_connection_kwargs()  # type: ignore[attr-defined]
        assert (kwargs["socket_timeout"], kwargs["client_name"], broker.limits.max_events) == (0.5, "ours", 5)
        subscription = broker.subscribe("a")
        time.sleep(0.6)  # longer than any answer may take
        published(broker, "a", "x")
        assert texts(subscription, 1) == ["x"]
        subscription.close()


def test_a_unix_socket_will_do(tmp_path: Path) -> None:
    path = Path("/tmp") / f"ssesync-{uuid.uuid4().hex}.sock"  # short, as the system wants it
    server = RedisServer(tmp_path, "--save", "", "--unixsocket", str(path))
    server.start()
    try:
        with open_broker(f"unix://{path}") as broker, broker.subscribe("a") as subscription:
            published(broker, "a", "x")
            assert texts(subscription, 1) == ["x"]
    finally:
        server.kill()
        path.unlink(missing_ok=True)


def test_processes_that_fork_go_on_each_by_itself(redis_server: RedisServer) -> None:
    url = f"{redis_server.url}?prefix={uuid.uuid4().hex}"
    assert forked(url) == "0 2 False ['of the child', 'of the parent'] True ['of the child', 'of the parent']"


def test_without_redis_py_the_remedy_is_named() -> None:
    code = """
import sys
sys.modules["redis"] = None
from ssesync import SettingsError, open_broker
try:
    open_broker("redis://localhost")
except SettingsError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    assert "pip install 'ssesync[redis]'" in run.stdout
