"""``manage.py sse_publish``: publish an event from a shell, a script or a cron job."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ssesync import SSEError
from ssesync.commands import make_event, memory_warning
from ssesync_django import publish
from ssesync_django.channels import broker_url

__all__ = ["Command"]


class Command(BaseCommand):
    """Publishes one event and prints its id."""

    help = (
        "Publish an event to a channel and print its id. The subscribers of other processes get it with an "
        "SSESYNC_BROKER that they share: sqlite:// on one machine, redis:// on many."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("channel")
        parser.add_argument(
            "data", nargs="?", default="-", help="the event's data; '-', or nothing, reads it from standard input"
        )
        parser.add_argument("--type", help="the event's type, for addEventListener() in browsers")
        parser.add_argument("--json", action="store_true", help="check that the data is JSON, and send it compactly")
        parser.add_argument(
            "--final",
            action="store_true",
            help="close the channel: the streams of its subscribers end after the event",
        )

    def handle(
        self, *args: Any, channel: str, data: str, type: str | None, json: bool, final: bool, **options: Any
    ) -> None:
        """Publish.

        :raises django.core.management.base.CommandError: it was not published.
        """
        try:
            event_id = publish(channel, make_event(data, type, as_json=json, stdin=sys.stdin), final=final)
        except (SSEError, ValueError) as error:
            raise CommandError(str(error)) from error
        if event_id:
            self.stdout.write(event_id)
        if warning := memory_warning(broker_url()):
            self.stderr.write(self.style.WARNING(warning))
