"""``flask sse``: publish, follow channels, and check the configuration, from a shell, a script or a cron job."""

from __future__ import annotations

import sys

import click
from flask import current_app
from flask.cli import AppGroup

from ssesync import SSEError
from ssesync.commands import check_broker, follow, make_event, memory_warning

from .state import encoder_of, state_of_current_app

__all__ = ["sse_group"]

sse_group = AppGroup("sse", help="Publish events, follow channels, check the configuration.")


@sse_group.command("publish")
@click.argument("channel")
@click.argument("data", default="-")
@click.option("--type", "type_", metavar="TYPE", help="The event's type, for addEventListener() in browsers.")
@click.option("--json", "as_json", is_flag=True, help="Check that the data is JSON, and send it compactly.")
@click.option("--final", is_flag=True, help="Close the channel: the streams of its subscribers end after the event.")
def publish(channel: str, data: str, type_: str | None, as_json: bool, final: bool) -> None:
    """Publish an event to CHANNEL, and print its id. DATA '-', or none, is read from standard input."""
    broker = state_of_current_app().broker
    try:
        event = make_event(data, type_, as_json=as_json, stdin=sys.stdin)
        click.echo(broker.publish(channel, event, final=final, dumps=encoder_of(current_app)))
    except (SSEError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if not broker.is_shared:
        click.echo(f"Warning: {memory_warning('memory:')}", err=True)


@sse_group.command("tail")
@click.argument("channels", nargs=-1)
@click.option("--pattern", "patterns", multiple=True, metavar="PATTERN", help="All channels that match, as room:*.")
@click.option("--last", type=click.IntRange(min=0), default=0, metavar="N", help="Begin with the last N events.")
def tail(channels: tuple[str, ...], patterns: tuple[str, ...], last: int) -> None:
    """Write the events of CHANNELS as lines of JSON: type, data, id. It needs no server."""
    if not (channels or patterns):
        raise click.UsageError("name a channel or a --pattern")
    broker = state_of_current_app().broker
    if not broker.is_shared:
        raise click.ClickException("the log of memory:// is within one process: use sqlite:// or redis://")
    try:
        follow(broker, channels, click.echo, patterns=patterns, last=last)
    except KeyboardInterrupt:
        sys.exit(130)
    except (SSEError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@sse_group.command("check")
def check() -> None:
    """Check SSESYNC_BROKER, and whether the broker can be reached. Exits with 1 if there is an error."""
    errors = 0
    url = current_app.config.get("SSESYNC_BROKER")
    for finding in check_broker(url) if isinstance(url, str) else []:
        errors += finding.id.startswith("E")
        hint = f"\n    {finding.hint}" if finding.hint else ""
        click.echo(f"{finding.id}: {finding.message}{hint}", err=True)
    broker = state_of_current_app().broker
    if not errors:
        try:
            broker.position()
        except SSEError as error:
            errors += 1
            click.echo(f"E007: the broker can't be reached: {error}", err=True)
    if not broker.is_shared:
        click.echo("W002: the broker is memory://, whose events reach only clients of the same worker.", err=True)
    if errors:
        sys.exit(1)
    click.echo("The configuration has no errors.")
