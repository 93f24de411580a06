"""The built wheel, tested where it has to work: each interpreter, and the oldest and newest of what it is used with.

``nox -s wheel-3.12`` runs one session, ``nox`` all that have an interpreter here. What is tested is installed from the
wheel; the checkout gives only ``tests``, ``docs``, ``benchmarks`` and ``example_projects``. Arguments behind ``--`` go
to pytest: ``nox -s wheel-3.12 -- tests/unit/wire``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
#: What is tested without arguments: all that starts no server.
TESTS = ["-m", "not live and not slow"]
#: With the servers themselves.
WITH_SERVERS = ["tests/unit", "tests/live/frameworks", "tests/live/detached/test_tiers.py"]
#: The floors of setup.cfg, in the newest releases of their series, and the interpreter that they all run on.
OLDEST = ["django~=4.2.0", "flask~=3.0.0", "werkzeug~=3.0.0", "gunicorn~=22.0", "requests~=2.32.3", "urllib3~=2.3.0"]
#: What the tests of a checkout need beside the package.
CHECKOUT = [
    *("tests", "docs", "benchmarks", "example_projects"),
    *("pyproject.toml", "setup.cfg", "README.md", "CHANGELOG.md"),
]

nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["wheel", "oldest", "newest"]


def install(session: nox.Session, *packages: str) -> Path:
    """Build the wheel, install it with the tests' packages, and make a checkout without the package's sources."""
    folder = Path(session.create_tmp())
    built = folder / "dist"
    shutil.rmtree(built, ignore_errors=True)
    session.install("build")
    session.run("python", "-m", "build", "--wheel", "--outdir", str(built), ".", silent=True)
    [wheel] = built.glob("*.whl")
    session.install(f"{wheel}[dev]", *packages)
    checkout = folder / "checkout"
    shutil.rmtree(checkout, ignore_errors=True)
    checkout.mkdir()
    for name in CHECKOUT:
        source = Path(name)
        if source.is_dir():
            ignored = shutil.ignore_patterns("_build", "__pycache__", "data", "node_modules")
            shutil.copytree(source, checkout / name, ignore=ignored)
        else:
            shutil.copy(source, checkout / name)
    return checkout


def run_tests(session: nox.Session, checkout: Path, default: list[str]) -> None:
    """Run pytest in the checkout, after a look at where the package comes from."""
    session.chdir(checkout)
    session.run("python", "-c", "import ssesync; assert 'site-packages' in ssesync.__file__, ssesync.__file__")
    session.run("python", "-m", "pytest", "--numprocesses", "2", *(session.posargs or default))


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """The quick tests on one interpreter, with the newest of everything."""
    run_tests(session, install(session), TESTS)


@nox.session(python="3.10")
def oldest(session: nox.Session) -> None:
    """Unit tests and servers with the oldest supported Django, Flask, gunicorn, requests and urllib3."""
    run_tests(session, install(session, *OLDEST), WITH_SERVERS)


@nox.session(python="3.13")
def newest(session: nox.Session) -> None:
    """The same with the newest of everything, pre-releases of Django and Flask among them."""
    checkout = install(session)
    session.install("--upgrade", "--pre", "django", "flask", "gunicorn")
    run_tests(session, checkout, WITH_SERVERS)


@nox.session
def matrix(session: nox.Session) -> None:
    """The combinations that ``make test`` leaves out, on the checkout."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", "--numprocesses", "2", "--dist", "loadfile", "-m", "matrix", *session.posargs)


@nox.session
def types(session: nox.Session) -> None:
    """Both type checkers, on the checkout."""
    session.install("-e", ".[dev]")
    session.run("mypy")
    session.run("pyright")


@nox.session
def coverage(session: nox.Session) -> None:
    """Branch coverage of the core by the quick tests, which may not be less than ``fail_under`` in pyproject.toml."""
    session.install("--editable", ".[dev]")
    session.run("coverage", "erase")
    in_two_processes = ["--numprocesses", "2", "--dist", "loadfile"]
    session.run("coverage", "run", "-m", "pytest", *in_two_processes, *TESTS, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def build(session: nox.Session) -> None:
    """What a release uploads, in dist/."""
    session.install("build")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
