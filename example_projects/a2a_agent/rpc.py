"""JSON-RPC messages as A2A uses them, and its errors."""

import enum
import json


class Code(enum.IntEnum):
    """The codes of errors: JSON-RPC's, and A2A's own."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    TASK_NOT_FOUND = -32001
    TASK_NOT_CANCELABLE = -32002
    PUSH_NOTIFICATION_NOT_SUPPORTED = -32003
    UNSUPPORTED_OPERATION = -32004
    CONTENT_TYPE_NOT_SUPPORTED = -32005
    EXTENDED_AGENT_CARD_NOT_CONFIGURED = -32007
    VERSION_NOT_SUPPORTED = -32009


class RPCError(Exception):
    """An error that the client is to get."""

    def __init__(self, code, message, *, status=200):
        super().__init__(message)
        self.status = status
        self.fields = {"code": code, "message": message}
        if code > -32100:  # A2A's own have a name besides
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "domain": "a2a-protocol.org"}
            self.fields["data"] = [{**info, "reason": code.name}]


def response(id, result):
    return {"jsonrpc": "2.0", "id": id, "result": result}


def failure(id, fields):
    return {"jsonrpc": "2.0", "id": id, "error": fields}


def is_short(id):
    """Whether this is an id that a client may choose. Each event of an answer repeats some of them."""
    return isinstance(id, str) and len(id) <= 100


def parse(body):
    """The id, method and parameters of a request."""
    try:
        message = json.loads(body)
        json.dumps(message, ensure_ascii=False, allow_nan=False).encode()  # events can't carry half a surrogate pair
    except (ValueError, RecursionError):
        raise RPCError(Code.PARSE_ERROR, "The body is not JSON.") from None
    if isinstance(message, dict) and message.get("jsonrpc") == "2.0":
        id, method, params = message.get("id"), message.get("method"), message.get("params", {})
        has_id = is_short(id) or (isinstance(id, int) and not isinstance(id, bool) and is_short(str(id)))
        if has_id and isinstance(method, str) and isinstance(params, dict):
            return id, method, params
    raise RPCError(Code.INVALID_REQUEST, "The body must be one request of JSON-RPC.")
