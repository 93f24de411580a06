"""For limits by address, with and without the address that a proxy has seen."""

from .base import *  # noqa: F403

MIDDLEWARE = ["tests.apps.django_project.middleware.set_real_address"]
