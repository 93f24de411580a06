"""An MCP server for the protocol versions 2025-11-25 and 2026-07-28, on one URL.

Environment: HOSTS, the names that it is reached by, separated by commas (127.0.0.1,localhost).
"""

import contextlib
import json
import logging
import os
import uuid
from collections import OrderedDict
from threading import Lock
from urllib.parse import urlsplit

from flask import Flask, Response, g, request
from jsonrpc import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
    RPCError,
    check,
    decoded,
    failure,
    is_id,
    notification,
    response,
)
from tools import Notes, ToolError, make_tools
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from ssesync import Event, get_last_event_id
from ssesync.channels.envelope import Envelope, mcp_notification, mcp_subscription
from ssesync_flask import SSE, EventStreamResponse

SESSIONS, STATELESS = "2025-11-25", "2026-07-28"
META = "io.modelcontextprotocol/"
SERVER = {"name": "ssesync-example", "version": "1.0"}
#: The channel of changes to the list of notes. A note's own channel has its URI as its name.
LIST_CHANGED = "resources"
#: The parameter that the header Mcp-Name repeats.
NAMED = {"tools/call": "name", "resources/read": "uri"}
HOSTS = set(os.environ.get("HOSTS", "127.0.0.1,localhost").split(","))

sse = SSE()


def changed(uri, new):
    """Notify all listeners, after a note was written."""
    sse.publish(uri, mcp_notification("notifications/resources/updated", {"uri": uri}))
    if new:
        sse.publish(LIST_CHANGED, mcp_notification("notifications/resources/list_changed"))


notes = Notes(changed)
tools = make_tools(notes)


def create_app():
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 2**20
    sse.init_app(app)
    app.before_request(check_host)
    app.register_error_handler(RPCError, answer_error)
    app.register_error_handler(HTTPException, answer_http_error)
    app.add_url_rule("/mcp", view_func=post, methods=["POST"])
    app.add_url_rule("/mcp", view_func=follow, methods=["GET"])
    app.add_url_rule("/mcp", view_func=end_session, methods=["DELETE"])
    return app


# Both versions


def check_host():
    """Refuse pages of other sites, also those whose name leads to this machine (DNS rebinding)."""
    for address in (f"//{request.host}", request.headers.get("Origin")):
        try:
            allowed = not address or urlsplit(address).hostname in HOSTS
        except ValueError:
            allowed = False
        if not allowed:
            raise RPCError(INVALID_REQUEST, "Requests from this origin are not allowed.", status=403)


def answer_error(error):
    status = error.status
    if status is None:  # then it is the version that decides
        not_found = error.code == METHOD_NOT_FOUND
        status = (404 if not_found else 400) if g.version == STATELESS else 200
    return failure(g.get("id"), error.fields), status


def answer_http_error(error):
    """Errors of Flask and of the library, also 500 and 503, as JSON-RPC."""
    answer = error.get_response()
    answer.data = json.dumps(failure(g.get("id"), {"code": INTERNAL_ERROR, "message": error.name}))
    answer.content_type = "application/json"
    return answer


def require_accept(*types):
    for each in types:
        if not request.accept_mimetypes[each]:
            raise RPCError(INVALID_REQUEST, f"Accept must list {' and '.join(types)}.", status=406)


def post():
    require_accept("application/json", "text/event-stream")
    if not request.is_json:
        raise RPCError(INVALID_REQUEST, "Content-Type must be application/json.", status=415)
    try:
        message = json.loads(request.get_data())
        json.dumps(message, ensure_ascii=False, allow_nan=False).encode()  # an event can't carry half a surrogate pair
    except (ValueError, RecursionError):
        raise RPCError(PARSE_ERROR, "The body is not JSON.", status=400) from None
    check(message)
    g.id = message.get("id")
    g.version = request.headers.get("MCP-Protocol-Version", SESSIONS)
    if message.get("method") == "initialize":
        g.version = SESSIONS  # it negotiates the version, whatever the header says
        return initialize()
    if g.version not in (SESSIONS, STATELESS):
        data = {"supported": [SESSIONS, STATELESS], "requested": g.version}
        raise RPCError(UNSUPPORTED_VERSION, "Unsupported protocol version.", status=400, data=data)
    return post_stateless(message) if g.version == STATELESS else post_in_session(message)


def result_of(method, params):
    """The result of a request that both versions have."""
    if method == "tools/list":
        return {"tools": [tool.describe() for tool in tools.values()]}
    if method == "resources/list":
        return {"resources": [{"uri": f"note:{name}", "name": name} for name in notes.names()]}
    if method == "resources/read":
        uri = params.get("uri")
        text = notes.read(uri) if isinstance(uri, str) else None
        if text is None:
            raise RPCError(INVALID_PARAMS if g.version == STATELESS else -32002, "There is no such resource.")
        return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": text}]}
    raise RPCError(METHOD_NOT_FOUND, "Method not found.")


def call_tool(params):
    """The tool's result, or the generator of a slow one."""
    name, arguments = params.get("name"), params.get("arguments", {})
    if not isinstance(name, str) or name not in tools or not isinstance(arguments, dict):
        raise RPCError(INVALID_PARAMS, "There is no such tool, or its arguments are no object.")
    try:
        value = tools[name].call(arguments)
    except ToolError as error:
        return tool_result(str(error), failed=True)
    return tool_result(value) if isinstance(value, str) else value


def tool_result(text, failed=False):
    return {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": failed}


def slow_answer(id, token, steps):
    """The messages of a slow tool's answer: its progress, if the client has given a token for it, and the response."""
    try:
        for step in steps:
            if isinstance(step, str):
                yield response(id, tool_result(step))
            elif token is not None:
                params = {"progressToken": token, "progress": step[0], "total": step[1]}
                yield notification("notifications/progress", params)
    except ToolError as error:
        yield response(id, tool_result(str(error), failed=True))
    except Exception:
        logging.getLogger(__name__).exception("a tool failed")
        yield failure(id, {"code": INTERNAL_ERROR, "message": "The tool failed."})


def ended_early(id):
    """The message that ends an incomplete answer."""
    return failure(id, {"code": INTERNAL_ERROR, "message": "The server ended the call early."})


def progress_token(params):
    meta = params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    if not (token is None or is_id(token)):
        raise RPCError(INVALID_PARAMS, "progressToken must be a whole number, or text of at most 100 characters.")
    return token


# 2026-07-28: each request stands for itself. A client that closes an answer cancels it.


def post_stateless(message):
    if "id" not in message or "method" not in message:
        return Response(status=202)
    method, params = message["method"], message.get("params", {})
    check_envelope(method, params)
    if method == "subscriptions/listen":
        return listen(g.id, params.get("notifications"))
    if method == "tools/call":
        result = call_tool(params)
        if not isinstance(result, dict):
            answer = slow_answer(g.id, progress_token(params), result)
            return EventStreamResponse(answer, error_event=Event.from_json(ended_early(g.id)))
        return response(g.id, result)
    if method == "server/discover":
        capabilities = {"tools": {}, "resources": {"listChanged": True, "subscribe": True}}
        result = {"supportedVersions": [SESSIONS, STATELESS], "capabilities": capabilities}
    else:
        result = result_of(method, params)
    result |= {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "_meta": {f"{META}serverInfo": SERVER}}
    return response(g.id, result)


def check_envelope(method, params):
    """What a client repeats in headers, for proxies, must be what the body has."""
    meta = params.get("_meta")
    if not isinstance(meta, dict) or not {f"{META}protocolVersion", f"{META}clientCapabilities"} <= meta.keys():
        raise RPCError(INVALID_PARAMS, f"_meta must have {META}protocolVersion and {META}clientCapabilities.")
    same = meta[f"{META}protocolVersion"] == g.version and request.headers.get("Mcp-Method") == method
    if method in NAMED:
        same = same and decoded(request.headers.get("Mcp-Name")) == params.get(NAMED[method])
    if not same:
        raise RPCError(HEADER_MISMATCH, "The headers do not match the body.")


def listen(id, wanted):
    """Answer with notifications until the client leaves. The subscription takes no thread."""
    if not isinstance(wanted, dict):
        raise RPCError(INVALID_PARAMS, "notifications must be an object.")
    uris = wanted.get("resourceSubscriptions") or []
    if not isinstance(uris, list) or len(uris) > 100:
        raise RPCError(INVALID_PARAMS, "resourceSubscriptions must be a list of at most 100 URIs.")
    # The filter as far as it is met here. There are no other notifications, and no prompts.
    channels = honored = [uri for uri in dict.fromkeys(map(str, uris)) if notes.read(uri) is not None]
    accepted = {"resourceSubscriptions": honored} if honored else {}
    if wanted.get("resourcesListChanged") is True:
        accepted["resourcesListChanged"] = True
        channels = [*honored, LIST_CHANGED]
    meta = {f"{META}subscriptionId": id}
    first = notification("notifications/subscriptions/acknowledged", {"notifications": accepted, "_meta": meta})
    return sse.subscribe(
        *(channels or ["nothing"]),
        envelope=mcp_subscription(id),
        on_connect=lambda subscription: [first],
        # A server that stops ends the subscription at once, and with a result, as the protocol requires.
        drain="end",
        error_event=Event.from_json(response(id, {"resultType": "complete", "_meta": meta})),
    )


# 2025-11-25: sessions. A client may lose its connection and resume.


class Session:
    """A session, which is open until it is removed from the sessions."""

    def __init__(self):
        self.id = uuid.uuid4().hex
        self._lock = Lock()
        self._calls = {}

    def add_call(self, id):
        """The name of a new run that answers the request with this id. Some clients use an id again when they resume a
        session, so the name does not depend on it."""
        name = f"call:{uuid.uuid4().hex}"
        with self._lock:
            self._calls[name] = id
            if len(self._calls) > 100:
                del self._calls[next(iter(self._calls))]
        return name

    def calls(self):
        """The ids of the last hundred slow calls, by the names of their runs."""
        with self._lock:
            return dict(self._calls)


class Sessions:
    """The open sessions. There is a limit: over it, the session that was not used for longest ends.

    An application with several processes keeps them in its database.
    """

    def __init__(self, limit=10_000):
        self._limit = limit
        self._lock = Lock()
        self._sessions = OrderedDict()

    def add(self):
        session = Session()
        with self._lock:
            self._sessions[session.id] = session
            if len(self._sessions) > self._limit:
                self._sessions.popitem(last=False)
        return session

    def use(self, id):
        """The session, ``None`` if there is no such session."""
        with self._lock:
            if id in self._sessions:
                self._sessions.move_to_end(id)
            return self._sessions.get(id)

    def remove(self, session):
        with self._lock:
            self._sessions.pop(session.id, None)


sessions = Sessions()


def initialize():
    capabilities = {"tools": {}, "resources": {"listChanged": True}}
    result = {"protocolVersion": SESSIONS, "capabilities": capabilities, "serverInfo": SERVER}
    return response(g.id, result), {"Mcp-Session-Id": sessions.add().id}


def current_session():
    id = request.headers.get("Mcp-Session-Id")
    if not id:
        raise RPCError(INVALID_REQUEST, "Mcp-Session-Id is missing.", status=400)
    session = sessions.use(id)
    if session is None:
        raise RPCError(INVALID_REQUEST, "There is no such session.", status=404)  # the client begins a new one
    return session


def following(id):
    """Options of a response that follows the run of a call. A call that does not end by itself ends with an error
    response, by which the client knows that no result comes. A server that stops waits for calls to finish."""
    error = ended_early(id)
    data = json.dumps(error).encode()
    envelope = Envelope(failed=data, interrupted=data)  # of the run: its worker was killed, or its time is over
    return {"envelope": envelope, "error_event": Event.from_json(error), "drain": "finish"}


def stop_call(session, name):
    with contextlib.suppress(NotFound):  # its time to be retained is over
        sse.stop_run(name, subject=session.id)


def post_in_session(message):
    session = current_session()
    method, params = message.get("method"), message.get("params", {})
    if "id" not in message or method is None:
        if method == "notifications/cancelled":
            for name, id in session.calls().items():
                if id == params.get("requestId"):
                    stop_call(session, name)
        return Response(status=202)
    if method == "ping":
        return response(g.id, {})
    if method == "tools/call":
        result = call_tool(params)
        if not isinstance(result, dict):
            # A run continues when the connection is lost. Its first event is empty: a client can resume from its id.
            def answer():
                yield Event("")
                yield from slow_answer(id, token, result)

            id, token = g.id, progress_token(params)
            options = {"max_seconds": 3600, "retain": 300, **following(id)}
            return sse.run(session.add_call(id), answer, subject=session.id, **options)
        return response(g.id, result)
    return response(g.id, result_of(method, params))


def follow():
    """The session's stream of notifications or, after an id of one of its calls, the rest of that call's answer."""
    if request.headers.get("MCP-Protocol-Version") == STATELESS:
        raise MethodNotAllowed(["POST"])
    require_accept("text/event-stream")
    session = current_session()
    channel = sse.broker.channel_of(get_last_event_id(request))
    if channel is not None and channel.startswith("call:"):
        return sse.follow_run(channel, subject=session.id, **following(session.calls().get(channel)))
    if request.method == "GET":  # not for HEAD
        # A session has one stream, the newest, as it must not get a message twice.
        sse.revoke(session.id, LIST_CHANGED)
    return sse.subscribe(LIST_CHANGED, key=session.id)


def end_session():
    if request.headers.get("MCP-Protocol-Version") == STATELESS:
        raise MethodNotAllowed(["POST"])
    session = current_session()
    sessions.remove(session)
    for name in session.calls():
        stop_call(session, name)
    sse.revoke(session.id)
    return Response(status=204)
