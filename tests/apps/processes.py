"""Steps of producers that start processes and threads."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

__all__ = ["PROCESSES"]

pool = ThreadPoolExecutor(2)


def run_program() -> str:
    code = "print('program')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def fork() -> int:
    pid = os.fork()
    if not pid:
        os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_process() -> int | None:
    """A process of ``multiprocessing`` that is a fork, and runs what Python runs at its end."""
    process = multiprocessing.get_context("fork").Process(target=sys.exit, args=(5,))
    process.start()
    process.join()
    return process.exitcode


def run_thread() -> str:
    made: list[str] = []
    thread = threading.Thread(target=lambda: made.append("thread"))
    thread.start()
    thread.join()
    return made[0]


def look_up() -> int:
    async def look() -> int:
        return len(await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80))

    return asyncio.run(look())


PROCESSES = {
    "program": run_program,
    "fork": fork,
    "process": run_process,
    "pool": lambda: pool.submit(str, 7).result(),
    "thread": run_thread,
    "look up": lambda: look_up() > 0,
}
