"""The running examples."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import started as servers
from .started import Server


@pytest.fixture(scope="package", params=["flask_live-gunicorn", "django_live-gunicorn", "django_live-runserver"])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Every example under every server that its README names."""
    name, _, server = request.param.partition("-")
    with getattr(servers, server)(name, tmp_path_factory.mktemp(request.param)) as running:
        yield running
