"""For streams whose producers use the database. runserver serves the same application as the other servers."""

from .base import *  # noqa: F403

MIDDLEWARE = ["tests.apps.django_project.middleware.hold_transaction"]
WSGI_APPLICATION = "tests.apps.streams.application"
