"""The app's configuration."""

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_out

from ssesync_django import revoke


class BoardConfig(AppConfig):
    name = "board"

    def ready(self):
        user_logged_out.connect(end_streams, dispatch_uid="board.end_streams")


def end_streams(*, user, **_):
    """End the streams of a user at the sign-out. Those of the user's other browsers reconnect after a second."""
    if user is not None:
        revoke(user)
