"""Flask applications of blueprints, one for each subject.

A module whose application is served by itself has it under the name ``application``.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Flask, request

from tests.apps import facts, process

#: What every application has.
common = Blueprint("common", __name__)


@common.get("/plain")
def plain() -> str:
    return "plain"


@common.get("/facts")
def facts_of() -> dict[str, Any]:
    return facts.of(request.args["of"])


@common.get("/state")
def state() -> dict[str, Any]:
    return process.counts()


def create_app(*blueprints: Blueprint, **config: Any) -> Flask:
    """Make an application.

    :param blueprints: what it has beside the common routes, before which these are found.
    :param config: its configuration.
    :return: the application.
    """
    app = Flask("tests.apps.flask_app")
    app.secret_key = "for tests only"
    app.config.update(config)
    for blueprint in (*blueprints, common):
        app.register_blueprint(blueprint)
    return app
