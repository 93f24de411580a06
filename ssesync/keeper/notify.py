"""Notifications to the service manager, as of systemd's ``sd_notify(3)``: lines of text to a datagram socket."""

from __future__ import annotations

import logging
import os
import socket
import time

from ..text import escape

__all__ = ["notify", "reloading"]

logger = logging.getLogger("ssesync.keeper")

#: The environment variable that names the socket. A leading ``@`` stands for Linux' abstract namespace.
_SOCKET = "NOTIFY_SOCKET"


def notify(*assignments: str) -> bool:
    """Notify the service manager. Without one, and if it can't be reached, nothing happens: it must not end a keeper.

    :param assignments: such as ``READY=1``, ``MAINPID=4711``, ``STATUS=text``.
    :return: whether the notification was sent.
    """
    address = os.environ.get(_SOCKET, "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            sender.sendall("\n".join(assignments).encode())
    except OSError as error:
        logger.warning("the service manager can't be notified over %s: %s", escape(address), escape(error))
        return False
    return True


def reloading() -> bool:
    """Notify the service manager that a reload has begun. ``READY=1`` ends it.

    :return: whether the notification was sent.
    """
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
