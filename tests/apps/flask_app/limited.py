"""A stream of which each address may have one."""

from __future__ import annotations

from flask import Blueprint

from ssesync_flask import event_stream
from tests.apps.producers import ONE_PER_ADDRESS, silence

blueprint = Blueprint("limited", __name__)
blueprint.add_url_rule("/limited", view_func=event_stream(**ONE_PER_ADDRESS)(silence))
