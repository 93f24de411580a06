"""With Flask-SQLAlchemy an open stream holds neither a session nor a pooled connection between its producer's steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import flask
import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from ssesync_flask import EventStreamResponse

TIMEOUT = 90.0


class Application:
    """A Flask application whose producers query once for each event."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.app = flask.Flask(__name__)
        self.app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 1, "max_overflow": 0}
        self.app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{folder / 'database.sqlite3'}"
        self.database = SQLAlchemy(self.app)
        self.proceed = self.proceed_again = threading.Semaphore(0)
        self.sessions: list[Any] = []
        self.producers: list[threading.Thread] = []

        @self.app.get("/stream")
        def stream() -> flask.Response:
            return EventStreamResponse(self._events, max_streams=None, first_event_timeout=0, **options)

        with self.app.app_context():
            self.engine = self.database.engine

    def _events(self) -> Iterator[str]:
        self.producers.append(threading.current_thread())
        proceed = self.proceed
        while True:
            proceed.acquire()
            proceed = self.proceed_again
            self.sessions.append(self.database.session())
            yield str(self.database.session.execute(text("SELECT 41 + 1")).scalar())

    def open(self) -> Any:
        """A stream as a server holds it: in a thread of its own, which the frameworks' test clients would not give."""
        environ: dict[str, Any] = {"SERVER_SOFTWARE": "test", "QUERY_STRING": ""}
        setup_testing_defaults(environ)
        environ["PATH_INFO"] = "/stream"
        return self.app.wsgi_app(environ, lambda *_: lambda data: None)

    def held(self) -> int:
        """Connections that are out of the pool."""
        return int(self.engine.pool.checkedout())  # type: ignore[attr-defined]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Application]]:
    """Makes applications, and closes the connections in their pools when the test is over."""
    made: list[Application] = []

    def give(**options: Any) -> Application:
        made.append(Application(tmp_path, **options))
        return made[-1]

    yield give
    for application in made:
        for producer in application.producers:
            producer.join(TIMEOUT)  # its last step opens a session once more
        application.engine.dispose()


def settles(application: Application, held: int) -> bool:
    waited = threading.Event()
    for _ in range(int(TIMEOUT / 0.02)):
        if application.held() == held:
            return True
        waited.wait(0.02)
    return False


def read(body: Iterator[bytes]) -> bytes:
    """The next piece that is no keep-alive."""
    while (piece := next(body)).startswith(b":"):
        pass
    return piece


def test_the_session_is_removed_after_each_step(make: Callable[..., Application]) -> None:
    application = make()
    body = application.open()
    pieces = iter(body)
    try:
        for _ in range(3):
            application.proceed.release()
            assert read(pieces) == b"data: 42\n\n"
            assert settles(application, held=0)
        assert len({id(session) for session in application.sessions}) == 3
    finally:
        body.close()
        application.proceed.release()


@pytest.mark.parametrize("release_db", ["start", None])
def test_with_the_other_settings_it_is_kept_until_the_producer_ends(
    make: Callable[..., Application], release_db: str | None
) -> None:
    application = make(release_db=release_db)
    body = application.open()
    pieces = iter(body)
    try:
        for _ in range(2):
            application.proceed.release()
            assert read(pieces) == b"data: 42\n\n"
            assert application.held() == 1
        first, second = application.sessions
        assert first is second
    finally:
        body.close()
        application.proceed.release()
    assert settles(application, held=0)


def test_twenty_streams_do_with_a_pool_of_one(make: Callable[..., Application]) -> None:
    application = make()
    # Or a stream that is quick would take another's turn.
    application.proceed_again = threading.Semaphore(0)
    bodies = [application.open() for _ in range(20)]
    try:
        pieces = [iter(body) for body in bodies]
        for body in pieces:
            assert next(body) == b":ok\n"
        for _ in bodies:
            application.proceed.release()
        for body in pieces:
            assert read(body) == b"data: 42\n\n"
        assert settles(application, held=0)
    finally:
        for body in bodies:
            body.close()
        for _ in bodies:
            application.proceed.release()
            application.proceed_again.release()
