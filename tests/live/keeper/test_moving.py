"""A client that is moved from a process to itself again and again misses no event: the base of all ways to move it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.deploys_servers import Clients, Deployment
from tests.servers import place_of

from .series import ENDS, FAULTS, broker_of, kinds_of, plan_of


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["sqlite", pytest.param("redis", marks=pytest.mark.matrix)])
def test_no_client_misses_an_event_however_often_it_is_moved(broker: str, tmp_path: Path) -> None:
    with broker_of(broker, tmp_path) as url:
        plan = replace(
            plan_of("nothing", url, "gthread"), workers=1, app=place_of("flask_app.moving"), send_buffer=4096
        )
        kinds = kinds_of(60)
        with (
            Deployment(plan, tmp_path) as deployment,
            Clients(deployment.port, kinds, url, size=600, channels=2) as load,
        ):
            for seconds in (0.2, 4.0):
                load.publish()
                time.sleep(seconds)
                report = load.reach_newest(30)
                assert not {name: report[name] for name in (*FAULTS, *ENDS) if report.get(name)}, report
            assert report["received"] > 60
            assert deployment.log(last=1 << 30).count("a client was moved") > 60
