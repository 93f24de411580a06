"""``python -m ssesync publish CHANNEL [DATA]``: publish an event from a shell, a script or a cron job."""

from __future__ import annotations

import sys

import click

from ..commands import make_event
from ..errors import SSEError
from .broker import broker_file, find_broker
from .failure import Failure

__all__ = ["publish"]


@click.command()
@click.argument("channel")
@click.argument("data", default="-")
@click.option("--type", "type_", metavar="TYPE", help="The event's type, for addEventListener() in browsers.")
@click.option("--json", "as_json", is_flag=True, help="Check that the data is JSON, and send it compactly.")
@click.option("--final", is_flag=True, help="Close the channel: the streams of its subscribers end after the event.")
@broker_file
def publish(channel: str, data: str, type_: str | None, as_json: bool, final: bool, broker_file: str | None) -> None:
    """Publish an event to CHANNEL, and print its id.

    DATA is its data; '-', or nothing, reads it from standard input. The broker's URL is in the environment variable
    SSESYNC_BROKER: sqlite:////path on one machine, redis://host between machines.
    """
    with find_broker(broker_file) as broker:
        try:
            event = make_event(data, type_, as_json=as_json, stdin=sys.stdin)
            click.echo(broker.publish(channel, event, final=final))
        except (SSEError, ValueError) as error:
            raise Failure(str(error)) from error
