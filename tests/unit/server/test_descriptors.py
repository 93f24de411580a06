"""Which descriptors detached sockets get: in processes of their own, as limits are a process's."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("resource", reason="only POSIX has limits of open files")

BEGIN = """
import errno, os, resource, socket, subprocess, threading
from ssesync import SettingsError
from ssesync.server import descriptors

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

def limit(soft, hard=hard):
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

ours, theirs = socket.socketpair()

def duplicate(count):
    return [descriptors.duplicate(ours.fileno()) for _ in range(count)]
"""


def run(script: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEGIN + script],
        env={"PYTHONPATH": ":".join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_they_begin_at_the_floor_and_end_at_the_hard_limit_and_the_soft_one_stays():
    run("""
limit(256, 600)
division = descriptors.divide(threads=4, connections=1000)
assert division.floor == 150, division
assert 0 < division.connections < 150
made = duplicate(descriptors.capacity())
assert (made[0], made[-1]) == (150, 599), made
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (256, 600)
assert not any(map(os.get_inheritable, made))
try:
    duplicate(1)
except OSError as error:
    assert error.errno == errno.EMFILE
else:
    raise AssertionError("there was one")
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (256, 600)
assert os.dup(0) < 20
for fd in made:
    theirs.send(b"x")
    assert os.read(fd, 1) == b"x"
""")


@pytest.mark.parametrize(
    ("soft", "most", "threads", "connections", "floor"),
    [(64, 64, 4, 1000, 32), (256, 256, 4, 1000, 128), (1024, 1024, 4, 1000, 256), (1024, 8192, 4, 1000, 1024)],
)
def test_what_is_kept_for_the_rest_grows_with_what_there_is(
    soft: int, most: int, threads: int, connections: int, floor: int
):
    run(f"""
limit({soft}, {most})
division = descriptors.divide({threads}, {connections})
assert division.floor == {floor}, division
assert division.connections >= {threads}
assert descriptors.capacity() == {most} - {floor}
""")


def test_where_there_are_plenty_the_server_keeps_all_its_connections():
    run("""
limit(8192, 8192)
division = descriptors.divide(threads=4, connections=1000)
assert division.connections == 1000
assert 1080 < division.floor < 1120, division
""")


def test_of_a_server_that_nothing_is_known_of_little_is_kept():
    run("""
limit(1024, 1024)
assert 69 < descriptors.division().floor < 100
assert descriptors.capacity() == 1024 - descriptors.division().floor
""")


def test_the_environment_bounds_how_far_they_go():
    script = "limit(256, 2048); assert descriptors.reach() == {}, descriptors.reach()"
    run(script.format(2048))
    run(script.format(256), SSESYNC_OPEN_FILES="0")
    run(script.format(1000), SSESYNC_OPEN_FILES="1000")
    run(script.format(2048), SSESYNC_OPEN_FILES="999999")
    run(
        """
try:
    descriptors.reach()
except SettingsError as error:
    assert "SSESYNC_OPEN_FILES" in str(error) and "'-1'" in str(error), error
else:
    raise AssertionError("it was taken")
""",
        SSESYNC_OPEN_FILES="-1",
    )


def test_without_ctypes_they_stay_below_the_soft_limit():
    run("""
import sys
sys.modules["ctypes"] = None
limit(256, 2048)
assert descriptors.reach() == 256
descriptors.divide()
assert duplicate(1)[0] == descriptors.division().floor
""")


def test_threads_and_children_see_the_soft_limit_while_others_are_handed_over():
    run("""
limit(256, 2048)
stop, seen = threading.Event(), set()

def churn():
    while not stop.is_set():
        for fd in duplicate(20):
            os.close(fd)
        seen.add(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

threads = [threading.Thread(target=churn) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(30):
    pid = os.fork()
    if not pid:
        os._exit(resource.getrlimit(resource.RLIMIT_NOFILE)[0] != 256)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
assert seen == {256}
made = duplicate(1500)
assert subprocess.run(["sh", "-c", "ulimit -Sn"], capture_output=True, text=True).stdout == "256\\n"
""")


def test_it_is_known_whether_so_many_more_are_free_and_none_is_kept():
    run("""
limit(64, 64)
taken = [os.dup(0) for _ in range(50)]
last = taken[-1]
assert [descriptors.are_free(count, 0) for count in (0, 63 - last, 64 - last)] == [True, True, False]
assert os.dup(0) == last + 1
""")


def test_a_hard_limit_that_is_lowered_meanwhile_is_a_shortage():
    run("""
limit(64, 600)
descriptors.divide()
descriptors._reach = lambda limits: 700
for _ in range(2):
    try:
        duplicate(1)
    except OSError as error:
        assert error.errno == errno.EMFILE
    else:
        raise AssertionError("it was raised")
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (64, 600)
""")
