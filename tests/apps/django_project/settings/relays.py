"""A gateway with middleware that gets in a stream's way."""

from .base import *  # noqa: F403

MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", "django.middleware.common.CommonMiddleware"]
