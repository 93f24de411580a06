"""``manage.py sse_publish``: publish an event from a shell, a script or a cron job."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ssesync import Event, SSEError
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

    def handle(self, *args: Any, channel: str, data: str, type: str | None, json: bool, **options: Any) -> None:
        """Publish.

        :raises django.core.management.base.CommandError: it was not published.
        """
        text = _standard_input() if data == "-" else data
        try:
            event = Event.from_json(_json(text), type=type) if json else Event(text, type=type)
            event_id = publish(channel, event)
        except SSEError as error:
            raise CommandError(str(error)) from error
        if event_id:
            self.stdout.write(event_id)
        if broker_url().startswith("memory:"):
            self.stderr.write(
                self.style.WARNING(
                    "SSESYNC_BROKER is memory://, which reaches only subscribers of the same process: no client gets "
                    "the event of this command. Use sqlite:////path or redis://host."
                )
            )


def _standard_input() -> str:
    if sys.stdin is None or sys.stdin.isatty():
        raise CommandError("give the event's data, or send it to standard input")
    try:
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise CommandError(f"standard input is not text: {error}") from error


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"the data is not JSON: {error}") from error


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"there is no {constant} in JSON")
