"""A worker of subscriptions in Django, for runserver."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

import ssesync
from ssesync_django import get_broker
from tests.apps.process import log_to_stderr
from tests.apps.worker import Worker

log_to_stderr()
application = Worker(get_wsgi_application(), get_broker)

if os.environ.get("TESTS_DRAIN"):
    ssesync.drain_on_signal()
