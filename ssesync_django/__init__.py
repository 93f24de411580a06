"""Server-Sent Events for Django under WSGI.

.. PYTEST_DONT_REWRITE (see ssesync)
"""

from ssesync import Ticket

from .channel_view import ChannelView
from .channels import get_broker, publish, revoke, subscribe
from .response import EventStreamResponse
from .runs import follow_run, run, start_run, stop_run
from .tickets import issue_ticket, ticket_required
from .views import event_stream, event_writer

__all__ = [
    "ChannelView",
    "EventStreamResponse",
    "Ticket",
    "event_stream",
    "event_writer",
    "follow_run",
    "get_broker",
    "issue_ticket",
    "publish",
    "revoke",
    "run",
    "start_run",
    "stop_run",
    "subscribe",
    "ticket_required",
]
