"""The URLs of the Django application of requests with bodies."""

from __future__ import annotations

from django.urls import path

from .bodies import django_view

urlpatterns = [path("django", django_view)]
