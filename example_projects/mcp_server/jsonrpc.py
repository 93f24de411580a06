"""JSON-RPC messages as MCP uses them, and MCP's headers."""

import base64
import binascii

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
HEADER_MISMATCH, UNSUPPORTED_VERSION = -32020, -32022


class RPCError(Exception):
    """An error that the client is to get. Without a status, the protocol version decides it."""

    def __init__(self, code, message, *, status=None, data=None):
        super().__init__(message)
        self.code = code
        self.status = status
        self.fields = {"code": code, "message": message, **({"data": data} if data else {})}


def response(id, result):
    return {"jsonrpc": "2.0", "id": id, "result": result}


def failure(id, fields):
    return {"jsonrpc": "2.0", "id": id, "error": fields}


def notification(method, params):
    return {"jsonrpc": "2.0", "method": method, "params": params}


def is_id(value):
    """Whether a client may choose this id of a request or token for its progress, which the answer repeats."""
    return isinstance(value, (str, int)) and not isinstance(value, bool) and len(str(value)) <= 100


def check(message):
    """Refuse what is no single message of JSON-RPC."""
    if isinstance(message, dict) and message.get("jsonrpc") == "2.0":
        id, method, params = message.get("id"), message.get("method"), message.get("params", {})
        has_id = is_id(id)
        if "method" not in message and has_id and ("result" in message) != ("error" in message):
            return message
        if isinstance(method, str) and isinstance(params, dict) and (has_id or "id" not in message):
            return message
    raise RPCError(INVALID_REQUEST, "The body must be one JSON-RPC message.", status=400)


def decoded(header):
    """The value of a header such as Mcp-Name, which is in base64 if it is not plain ASCII."""
    if header and header.startswith("=?base64?") and header.endswith("?="):
        try:
            return base64.b64decode(header[9:-2], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
    return header
