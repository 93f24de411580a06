"""Server-Sent Events for Django under WSGI.

.. PYTEST_DONT_REWRITE (see ssesync)
"""

from .response import EventStreamResponse
from .views import event_stream, event_writer

__all__ = ["EventStreamResponse", "event_stream", "event_writer"]
