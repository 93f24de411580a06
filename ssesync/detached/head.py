"""Checks of the bytes that a WSGI server writes before a stream is detached: the head and exactly the opening."""

from __future__ import annotations

import contextlib
import logging
import re
import socket

from ..server.detaching import Head
from ..server.wsgi_sockets import expect_loss
from ..wire.chunked import LAST_CHUNK

__all__ = ["LONGEST_HEAD", "difference", "log_dropped", "prepare", "sniff"]

logger = logging.getLogger("ssesync")

#: Bytes of a head that are kept at most.
LONGEST_HEAD = 16 * 1024 * 1024

# The kernel otherwise keeps some 4 MB for a client that does not read.
_SEND_BUFFER = 65536
# Seconds more than the send timeout, after which the kernel gives up a peer that acknowledges no data.
_LATER = 10

_STATUS = re.compile(rb"HTTP/1\.([01]) 200(?: [^\r\n]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\r\n]*)")
_SIZE = re.compile(rb"([0-9a-fA-F]{1,8})\r\n")


def sniff(data: bytes, opening: bytes) -> Head | None:
    """Parse the beginning of a response.

    :param data: all bytes that the server has written.
    :param opening: the stream's first bytes.
    :return: the head for the client, if this is the head of an event stream and exactly the opening; else ``None``.
    """
    top, end, body = data.partition(b"\r\n\r\n")
    status, *lines = top.split(b"\r\n")
    version = _STATUS.fullmatch(status)
    if not end or version is None:
        return None
    kept, values = [status], dict[bytes, bytes]()
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        name = field[1].lower()
        if name in (b"content-type", b"transfer-encoding", b"content-encoding") and name in values:
            return None
        values[name] = field[2].strip(b" \t").lower()
        if name not in (b"connection", b"keep-alive"):
            kept.append(line)
    kind = values.get(b"content-type", b"").partition(b";")[0].rstrip()
    if kind != b"text/event-stream" or b"content-length" in values:
        return None
    if values.get(b"content-encoding", b"identity") != b"identity":
        return None
    coding = values.get(b"transfer-encoding")
    if coding not in (None, b"chunked") or (coding is not None and version[1] == b"0"):
        return None
    if coding is None and body != opening:
        return None
    if coding is not None:
        size = _SIZE.match(body)
        if size is None or int(size[1], 16) != len(opening) or body[size.end() :] != opening + b"\r\n":
            return None
    return Head(b"\r\n".join([*kept, b"Connection: close", b"", body]), coding is not None)


def difference(written: bytes, opening: bytes) -> str:
    """Describe why :func:`sniff` returned ``None``, without quoting the bytes: a head has cookies."""
    top, end, body = written.partition(b"\r\n\r\n")
    if not end:
        return f"{len(top)} bytes of a head were written before the stream's second chunk; a middleware reads ahead"
    if opening in body:
        return "it is not the head of an event stream without length and content coding, or more than that was written"
    return "the written bytes are not the stream's opening; a middleware compresses or changes it"


def log_dropped(left: bytes) -> None:
    """Log a warning about bytes that a server wrote after the opening, which the client does not get.

    :param left: the bytes. A last chunk is expected.
    """
    if left not in (b"", LAST_CHUNK):
        logger.warning("%d bytes that the server wrote after a detached stream's opening are dropped", len(left))


def prepare(handle: socket.socket, send_timeout: float | None) -> None:
    """Set the options of a client's socket that leaves its server. Errors are ignored: a client that is gone is noticed
    later.

    :param handle: the socket.
    :param send_timeout: seconds after which a client counts as stalled.
    """
    timeout = None if send_timeout is None else send_timeout + _LATER
    with contextlib.suppress(OSError):
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if handle.family != getattr(socket, "AF_UNIX", None):
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            expect_loss(handle, timeout)
