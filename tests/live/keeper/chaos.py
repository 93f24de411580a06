"""Requests of an application while its keeper is ended, stopped, continued and killed.

``python -m tests.live.keeper.chaos --broker sqlite --requests 10000`` counts requests, of streams and of a plain view,
until there were so many, and prints what happened. None may fail, as the application does not depend on the keeper: a
failure is another status, no answer within 30 seconds, or a connection that ends before the head. No client may miss an
event or get it twice, whatever happens to the process that serves it: it comes back with its last event ID.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.deploys_servers import Clients, Deployment, StepFailed

from .series import FAULTS, broker_of, plan_of, shown

#: Names of a report that count no failed request.
GOOD = {
    *("requests", "opened", "plain", "received", "left", "ended", "fin", "reset", "connected", *FAULTS),
}
#: Of ten disturbances.
KINDS = ("kill", "term", "stop", "kill", "stop", "term", "upgrade", "stop", "kill", "stop")


class Disturber:
    """What happens to the keeper, on a thread.

    :param seed: of the random choices.
    :param pauses: seconds between two of them, the shortest and the longest.
    :param kinds: what happens: :data:`KINDS`, or ``hup``, as often as it is in there.
    """

    def __init__(
        self, deployment: Deployment, seed: int, pauses: tuple[float, float], kinds: Sequence[str] = KINDS
    ) -> None:
        self._deployment = deployment
        self._random = random.Random(seed)
        self._pauses = pauses
        self._kinds = kinds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.counts: collections.Counter[str] = collections.Counter()
        self.error: Exception | None = None

    def __enter__(self) -> Disturber:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _pause(self) -> bool:
        return self._over.wait(self._random.uniform(*self._pauses))

    def _run(self) -> None:
        try:
            while not self._pause():
                kind = self._random.choice(self._kinds)
                self.counts[kind] += 1
                if kind in ("upgrade", "hup"):
                    (self._deployment.upgrade if kind == "upgrade" else self._deployment.hup)()
                elif kind == "stop":
                    self._deployment.signal_keeper(signal.SIGSTOP)
                    # As long as several timeouts of a worker, or shorter than one.
                    self._over.wait(self._random.choice([0.05, 0.5, 2.0, 8.0]))
                    self._deployment.signal_keeper(signal.SIGCONT)
                else:
                    self._end(signal.SIGKILL if kind == "kill" else signal.SIGTERM)
        except (StepFailed, OSError) as error:
            self.error = error

    def _end(self, signum: int) -> None:
        """End the keeper, and start another one sooner or later."""
        keeper = self._deployment.keepers[0]
        keeper.send_signal(signum)
        if signum == signal.SIGTERM and self._random.random() < 0.3:
            # While it ends its clients.
            self._over.wait(self._random.uniform(0, 1))
            keeper.kill()
        keeper.wait(60)
        self._over.wait(self._random.choice([0.0, 0.3, 2.0]))
        self._deployment.start_keeper()


def chaos(
    broker: str,
    worker: str,
    clients: int,
    requests: int,
    folder: Path,
    *,
    seed: int = 1,
    pauses: tuple[float, float] = (0.2, 2.0),
    disturbances: Sequence[str] = KINDS,
    seconds: float = 1800.0,
    show: Callable[[str], object] = lambda line: None,
    **load: Any,
) -> tuple[dict[str, Any], list[str]]:
    """Do all of it.

    :param clients: half of them return again and again, and a tenth as many request a plain view.
    :return: figures, and what was wrong.
    """
    totals: collections.Counter[str] = collections.Counter()
    most: dict[str, float] = {}
    faults: list[str] = []
    kinds = {
        "normal": clients // 2 - clients // 10, "returning": clients // 2, "slow": clients // 20,
        "stalling": clients // 20, "plain": max(2, clients // 10),
    }  # fmt: skip

    def count(found: dict[str, Any]) -> None:
        show(shown({"seconds": 0.0, **found}))
        for name, value in found.items():
            if isinstance(value, int) and name != "connected":
                totals[name] += value
            elif isinstance(value, float) and name.startswith("plain_"):
                most[name] = max(most.get(name, 0.0), round(value, 1))

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(broker_of(broker, folder))
        plan = replace(plan_of("keeper", broker, worker), broker=url)
        deployment = stack.enter_context(Deployment(plan, folder))
        counting = stack.enter_context(Clients(deployment.port, kinds, url, slow=1.2, **load))
        counting.publish()
        time.sleep(0.2)
        count(counting.reach_newest(30))
        counting.publish()
        end = time.monotonic() + seconds
        with Disturber(deployment, seed, pauses, disturbances) as disturber:
            while totals["requests"] < requests and time.monotonic() < end and disturber.error is None:
                time.sleep(2)
                count(counting.report())
        if disturber.error is not None:
            faults.append(f"{disturber.error!r}\n{deployment.log('keeper0')}")
        last = counting.reach_newest(60)
        count(last)
        faults += [f"    {each}" for each in last["clients"]]
        failed = {name: count for name, count in totals.items() if count and (name not in GOOD or name in FAULTS)}
        faults += [f"{count} {name}" for name, count in failed.items()]
        if faults:
            faults.append(f"{deployment.log()}\n{deployment.log('keeper0')}")
    return {**totals, **most, "disturbed": dict(disturber.counts), "faults": len(faults)}, faults


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=["sqlite", "redis"], default="sqlite")
    parser.add_argument("--worker", choices=["gthread", "sync"], default="gthread")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1800.0, help="at most")
    parser.add_argument("--disturbances", nargs="+", choices=[*sorted(set(KINDS)), "hup"], default=KINDS)
    parser.add_argument("--folder", type=Path, help="for logs, which are kept then")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        figures, faults = chaos(
            given.broker, given.worker, given.clients, given.requests, folder,
            seed=given.seed, disturbances=given.disturbances, seconds=given.seconds,
            show=lambda line: print(line, flush=True),
        )  # fmt: skip
    print(json.dumps({"load": os.getloadavg()[0], **figures}))
    sys.exit("\n".join(faults[:50]) or 0)


if __name__ == "__main__":
    main()
