"""The example's addresses."""

import views
from django.urls import path

urlpatterns = [
    path("", views.page),
    path("top", views.Top.as_view()),
    path("job", views.job),
]
