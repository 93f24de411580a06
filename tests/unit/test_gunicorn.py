"""gunicorn's hooks, with its own configuration object."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ssesync import gunicorn as hooks


@pytest.mark.parametrize(
    ("config", "exists", "warns"),
    [
        ("python:ssesync.gunicorn", True, True),
        ("python:ssesync.gunicorn", False, False),
        ("./gunicorn.conf.py", True, False),
    ],
)
def test_a_configuration_that_gunicorn_does_not_read_is_named_in_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, config: str, exists: bool, warns: bool
) -> None:
    from gunicorn.config import Config

    if exists:
        (tmp_path / "gunicorn.conf.py").touch()
    cfg = Config()
    cfg.set("config", config)
    cfg.set("chdir", str(tmp_path))
    with caplog.at_level(logging.WARNING, "ssesync"):
        hooks._warn_of_unread_file(cfg)
    assert [str(tmp_path / "gunicorn.conf.py") in record.getMessage() for record in caplog.records] == [True] * warns
