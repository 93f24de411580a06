"""The example's addresses."""

from django.contrib.auth.views import LoginView, LogoutView
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import path

from . import views

urlpatterns = [
    path("", views.page, name="board"),
    path("events", views.Events.as_view(), name="events"),
    path("state", views.state, name="state"),
    path("pin", views.pin, name="pin"),
    path("notices/<int:pk>/remove", views.remove),
    path("notices/<int:pk>/thank", views.thank),
    path("clear", views.clear),
    path("login", LoginView.as_view(template_name="board/login.html", redirect_authenticated_user=True), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
    # With DEBUG only: in production the web server has what collectstatic has collected.
    *staticfiles_urlpatterns(),
]
