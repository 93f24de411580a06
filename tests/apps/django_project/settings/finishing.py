"""For runserver, which serves an application in plain WSGI."""

from .base import *  # noqa: F403

WSGI_APPLICATION = "tests.apps.wsgi.finishing.application"
