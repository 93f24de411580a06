"""Server-Sent Events for Flask.

.. PYTEST_DONT_REWRITE (see ssesync)
"""

from ssesync import Ticket

from .extension import SSE
from .response import EventStreamResponse
from .views import event_stream, event_writer

__all__ = ["SSE", "EventStreamResponse", "Ticket", "event_stream", "event_writer"]
