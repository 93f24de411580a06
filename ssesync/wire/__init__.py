"""The wire: bytes to events and back. Pure: no threads, no clock, no sockets."""

from ..text import escape
from .decoder import Decoder
from .encoder import KEEP_ALIVE, encode, encode_comment
from .http import (
    MEDIA_TYPE,
    add_accept_mime,
    get_last_event_id,
    is_event_stream,
    response_headers,
    set_last_event_id,
)
from .origin import with_cors

__all__ = [
    "KEEP_ALIVE",
    "MEDIA_TYPE",
    "Decoder",
    "add_accept_mime",
    "encode",
    "encode_comment",
    "escape",
    "get_last_event_id",
    "is_event_stream",
    "response_headers",
    "set_last_event_id",
    "with_cors",
]
