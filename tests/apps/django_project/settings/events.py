"""Subscriptions to channels, with the broker that the environment names."""

import os

from .base import *  # noqa: F403

WSGI_APPLICATION = "tests.apps.django_project.worker.application"
SSESYNC_BROKER = os.environ["TESTS_BROKER"]
