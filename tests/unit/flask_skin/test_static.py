"""The application serves the browser module."""

from __future__ import annotations

from flask import Flask, url_for

from ssesync_flask import SSE


def test_the_browser_module_has_a_route_and_is_not_sent_again() -> None:
    app = Flask(__name__)
    SSE(app)
    SSE(app)
    with app.test_request_context():
        url = url_for("ssesync.static", filename="ssesync.js")
    client = app.test_client()
    with client.get(url) as answer:
        assert answer.mimetype == "text/javascript"
        assert b"export class Stream" in answer.data
    with client.get(url, headers={"If-None-Match": answer.headers["ETag"]}) as again:
        assert (again.status_code, again.data) == (304, b"")
    for name, status in (("ssesync.d.ts", 200), ("../errors.py", 404)):
        with client.get(url.replace("ssesync.js", name)) as answer:
            assert answer.status_code == status
