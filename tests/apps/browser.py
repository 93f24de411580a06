"""A page with the browser module, and streams for it that the test refuses, ends or makes silent."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from flask import Flask, Response, abort, request, url_for

from ssesync import streams
from ssesync_flask import SSE

application = Flask(__name__)
application.secret_key = "for tests only"
application.config["SSESYNC"] = {"retry": 100, "keep_alive": 0.3, "keep_alive_event": "ping"}
application.config["SSESYNC_BROKER"] = os.environ.get("BROKER", "memory://")
sse = SSE(application)

#: How ``/events`` is answered: "", "503" or "retry".
mode = ""
signed_in = True
answers: Counter[str] = Counter()

PAGE = """<!doctype html><title>page</title><link rel=icon href='data:,'>
<script type=module>
import {Stream} from "%s";
window.seen = [];
window.follow = (url, options) => {
  const stream = window.stream = new Stream(url, {
    minWait: 50, maxWait: 400,
    onreset: () => seen.push("reset"),
    onend: event => seen.push(`end ${event && event.data}`),
    onrefused: status => seen.push(`refused ${status}`),
    ...options,
  });
  stream.onopen = () => seen.push("open");
  stream.onerror = event =>
    seen.push("data" in event ? `event of type error: ${event.data}` : `error ${stream.readyState}`);
  stream.onmessage = event => seen.push(event.data);
  stream.addEventListener("ping", () => { window.pings = (window.pings ?? 0) + 1; });
};
window.withTicket = async () => {
  const answer = await fetch("/ticket", {method: "POST"});
  return answer.ok ? `/private?ticket=${(await answer.json()).ticket}` : null;
};
addEventListener("pageshow", event => { window.persisted = event.persisted; });
</script>"""


@application.get("/")
def page() -> str:
    return PAGE % url_for("ssesync.static", filename="ssesync.js")


@application.get("/other")
def other() -> str:
    return "<!doctype html><title>other</title><link rel=icon href='data:,'>"


@application.get("/events")
def events() -> Any:
    answers[f"{request.method} {mode}"] += 1
    if mode == "503":
        abort(503)
    if mode == "retry":
        return Response("retry: 100\n", mimetype="text/event-stream")
    return sse.subscribe("news", key="page")


@application.get("/silent")
def silent() -> Any:
    """Without keep-alives, the first time."""
    answers["silent"] += 1
    return sse.subscribe("news", keep_alive=None if answers["silent"] == 1 else 0.3)


@application.post("/ticket")
def ticket() -> Any:
    return {"ticket": sse.issue_ticket("page", channels=["news"])} if signed_in else abort(401)


@application.get("/private")
def private() -> Any:
    return sse.subscribe(*sse.redeem_ticket().channels, key="page")


@application.get("/run/<name>")
def run(name: str) -> Any:
    return sse.follow_run(name, subject="")


@application.get("/control")
def control() -> Any:
    """Change how requests are answered; end the streams, or start a run."""
    global mode, signed_in
    mode = request.args.get("mode", mode)
    signed_in = request.args.get("signed_in", str(signed_in)) == "True"
    if "revoke" in request.args:
        sse.revoke("page")
    if "run" in request.args:
        sse.start_run(request.args["run"], lambda: ["one", "two"], subject="")
    return {"streams": len(streams.snapshot()["streams"]), "answers": answers, "position": sse.broker.position()}
