"""What a chain of gateways sends and asks for: ``CHAIN_UPSTREAM`` in the environment is the next server."""

from __future__ import annotations

import os
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from ssesync import Relay, relay_request

OPTIONS: dict[str, Any] = {"keep_alive": float(os.environ.get("CHAIN_KEEP_ALIVE", "60"))}

_session = requests.Session()
_session.trust_env = False
# A connection that a relay did not give back would be missed soon.
_session.mount("http://", HTTPAdapter(pool_maxsize=2, pool_block=True))


def relay_to(request: Any, path: str) -> Relay:
    """Return the next server's response to a request.

    :param request: of a framework, or a WSGI environ.
    :param path: of the next server.
    """
    if "CHAIN_ASKS_LATER" in os.environ:
        return Relay.from_request(request, os.environ["CHAIN_UPSTREAM"] + path, timeout=(10, None))
    return Relay(relay_request(request, os.environ["CHAIN_UPSTREAM"] + path, session=_session, timeout=(10, None)))
