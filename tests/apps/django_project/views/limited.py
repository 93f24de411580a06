"""A stream of which each address may have one."""

from __future__ import annotations

from ssesync_django import event_stream
from tests.apps.producers import ONE_PER_ADDRESS, silence

stream = event_stream(**ONE_PER_ADDRESS)(silence)
