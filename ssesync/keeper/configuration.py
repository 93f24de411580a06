"""The keepers of a broker's clients, as the application or the environment names them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ..detached.holder import Holder
from ..errors import SettingsError
from ..text import escape
from ..validation import check_sockets

if TYPE_CHECKING:
    from ..channels.broker import Broker

__all__ = ["VARIABLE", "find_holder"]

logger = logging.getLogger("ssesync")

#: The environment variable with the keepers' sockets, for brokers without a setting of their own.
VARIABLE = "SSESYNC_KEEPER"


def find_holder(broker: Broker) -> Holder | None:
    """Make the holder of a broker's clients in this process. No connection is made yet.

    :param broker: the broker.
    :return: the holder; ``None`` if there is no keeper, or it can't be used because of the broker, or because
        :data:`VARIABLE` is no list of paths. Both are logged: a request must not fail because of them.
    """
    try:
        paths = check_sockets(VARIABLE, os.environ.get(VARIABLE, "") if broker.keeper is None else broker.keeper)
    except SettingsError as error:
        logger.error("%s: the clients stay in this process", escape(error))
        return None
    if not paths:
        return None
    if not broker.is_shared:
        logger.warning(
            "a keeper has no effect: the log of memory:// is in this process alone, so its clients stay here"
        )
        return None
    from .client import KeeperClient  # most processes need none of it

    return KeeperClient(broker, paths)
