"""Channels in Django under WSGI and ASGI, with something published before there is a worker."""

from __future__ import annotations

from ssesync_django import publish

from .django_project.asgi import application as asgi
from .django_project.wsgi import application

__all__ = ["application", "asgi"]

# With --preload this is in the process that the workers are forked from: they can't use its connections.
publish("a", "published before any worker was there")
