"""The package has the files that pages load: in the sdist, in what a wheel is made of, and as it is installed here."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("ssesync.js", "ssesync.d.ts")
PLACES = ("ssesync/static", "ssesync_django/static/ssesync")


def setup(source: Path, *arguments: str) -> None:
    command = [sys.executable, "-c", "import setuptools; setuptools.setup()", *arguments]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_installed_packages_have_the_module_for_pages() -> None:
    for name in NAMES:
        here, there = (files(place.partition("/")[0]) / place.partition("/")[2] / name for place in PLACES)
        assert here.read_text("utf-8") == there.read_text("utf-8") != ""


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "ssesync").is_dir(), reason="the package's sources are not here")
def test_the_sdist_and_the_wheel_have_the_module_for_pages(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("ssesync", "ssesync_flask", "ssesync_django"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    setup(source, "sdist", "--dist-dir", str(tmp_path))
    [sdist] = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked")
    [unpacked] = (tmp_path / "unpacked").iterdir()
    # A wheel has the files of this folder.
    setup(unpacked, "build", "--build-base", str(tmp_path), "--build-lib", str(tmp_path / "wheel"))
    for name in NAMES:
        expected = (ROOT / PLACES[0] / name).read_bytes()
        for folder in (unpacked, tmp_path / "wheel"):
            assert [(folder / place / name).read_bytes() for place in PLACES] == [expected, expected]
