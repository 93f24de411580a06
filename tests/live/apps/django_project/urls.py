"""The routes."""

from django.urls import path

from . import views

urlpatterns = [
    path("gate", views.gate),
    path("writer", views.Writing.as_view()),
    path("leave", views.leave),
    path("awaited", views.awaited),
    path("flood", views.flood),
    path("failing", views.failing),
    path("forbidden", views.forbidden),
    path("missing", views.missing),
    path("crowd", views.crowd),
    path("finished", views.finished),
    path("ticks", views.ticks),
    path("database", views.database),
    path("connections", views.count_connections),
    path("plain", views.plain),
    path("facts", views.told),
]
