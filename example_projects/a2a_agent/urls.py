"""The example's addresses."""

import views
from django.urls import path

urlpatterns = [
    path(".well-known/agent-card.json", views.card),
    path("a2a", views.post),
]
