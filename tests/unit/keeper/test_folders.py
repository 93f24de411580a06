"""The folder in which workers of one master find each other."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssesync.keeper import folders
from ssesync.keeper.folders import Sibling, as_user, listen_in, make_folder, siblings_in, sweep
from ssesync.keeper.listening import Listener, listen

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sockets of siblings need Linux")


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder with a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


def test_a_folder_is_named_by_the_user_and_the_master_and_closed_to_others(base: Path) -> None:
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    folder = make_folder(os.getpid())
    assert folder == base / f"ssesync-{os.geteuid()}" / f"{os.getpid()}-{started}"
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]
    assert make_folder(os.getpid()) == folder


def test_siblings_are_found_by_their_sockets_the_newest_first(base: Path) -> None:
    folder = make_folder(os.getpid())
    workers = [Sibling(9, 501), Sibling(10, 500), Sibling(2, 77)]
    listeners = [listen(folder / worker.name) for worker in workers]
    (folder / "notes.txt").touch()
    assert siblings_in(folder) == [Sibling(10, 500), Sibling(9, 501), Sibling(2, 77)]
    for listener in listeners:
        listener.close()
    assert siblings_in(folder) == []
    assert siblings_in(folder / "gone") == []


def test_a_folder_that_others_can_enter_is_refused(base: Path) -> None:
    folder = make_folder(os.getpid())
    folder.chmod(0o750)
    with pytest.raises(PermissionError, match="0700"):
        make_folder(os.getpid())
    folder.chmod(0o700)
    folder.parent.chmod(0o755)
    with pytest.raises(PermissionError, match="0700"):
        make_folder(os.getpid())


def test_a_link_in_the_place_of_the_folder_is_refused(base: Path) -> None:
    (base / "elsewhere").mkdir(0o700)
    (base / f"ssesync-{os.geteuid()}").symlink_to(base / "elsewhere")
    with pytest.raises(NotADirectoryError):
        make_folder(os.getpid())
    assert not list((base / "elsewhere").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_users_folder_is_refused(base: Path) -> None:
    make_folder(os.getpid())
    os.chown(base / "ssesync-0", 12345, 12345)
    with pytest.raises(PermissionError, match="12345"):
        make_folder(os.getpid())


def test_the_next_place_is_used_where_one_is_missing_or_its_path_is_too_long(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = base / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    monkeypatch.setattr(folders.os, "geteuid", lambda: 4_000_000_000)  # has no folder in /run/user
    for given in (str(base / "missing"), str(long), "relative"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", given)
        with pytest.raises(PermissionError, match="belongs to user"):  # to the user of the tests
            make_folder(os.getpid())
        assert (base / "ssesync-4000000000").exists()


@pytest.mark.slow
def test_what_a_killed_master_has_left_is_removed_and_what_lives_is_not(base: Path) -> None:
    above = make_folder(os.getpid()).parent
    code = (
        "import os, sys; from ssesync.keeper.listening import listen; from ssesync.keeper.folders import *\n"
        "folder = make_folder(os.getpid()); listener = listen(folder / '1-1.sock'); print(folder, flush=True); input()"
    )

    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    killed, stale = start()
    living, used = start()
    with killed, living:
        killed.kill()
        killed.wait()
        assert siblings_in(stale) == siblings_in(used) == [Sibling(1, 1)]
        sweep(make_folder(os.getpid()))
        made = make_folder(os.getpid())
        assert sorted(above.iterdir()) == sorted([made, used])
        assert siblings_in(used) == [Sibling(1, 1)]
        living.communicate("\n")


def test_a_folder_that_another_process_removes_meanwhile_is_made_again(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed = []

    def removed_before(path: Path) -> Listener:
        if not removed:
            removed.append(path.parent)
            path.parent.rmdir()
            raise FileNotFoundError(path)
        return listen(path)

    monkeypatch.setattr(folders, "listen", removed_before)
    folder, listener = listen_in(os.getpid(), "1-1.sock")
    with listener:
        assert removed == [folder]
        assert siblings_in(folder) == [Sibling(1, 1)]


def test_the_last_worker_removes_the_folder(base: Path) -> None:
    folder = make_folder(os.getpid())
    first, second = listen(folder / "1-1.sock"), listen(folder / "2-2.sock")
    first.close()
    sweep(folder)
    assert siblings_in(folder) == [Sibling(2, 2)]
    second.close()
    sweep(folder)
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_makes_the_folder_as_the_user_of_the_workers(base: Path) -> None:
    base.chmod(0o777)
    with as_user(12345, 54321):
        folder = make_folder(os.getpid())
        listener = listen(folder / "1-1.sock")
    assert (os.geteuid(), os.getegid()) == (0, os.getgid())
    assert folder.parent.name == "ssesync-12345"
    assert folder.parent.parent == base
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (folder, folder.parent, folder / "1-1.sock")}
    assert owners == {(12345, 54321)}
    listener.close()


def test_no_other_user_is_set_where_it_is_not_needed() -> None:
    with as_user(os.geteuid(), os.getegid()):
        pass
