"""Django's staticfiles find the browser module."""

from __future__ import annotations

from pathlib import Path

from django.contrib.staticfiles import finders
from django.core.management import call_command
from django.test import modify_settings, override_settings

STORAGES = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"}}


def test_staticfiles_find_the_browser_module() -> None:
    found = finders.find("ssesync/ssesync.js")
    assert isinstance(found, str)
    assert "export class Stream" in Path(found).read_text("utf-8")


def test_collectstatic_collects_it_with_its_types(tmp_path: Path) -> None:
    with (
        modify_settings(INSTALLED_APPS={"append": "django.contrib.staticfiles"}),
        override_settings(STATIC_URL="/static/", STATIC_ROOT=str(tmp_path), STORAGES=STORAGES),
    ):
        call_command("collectstatic", interactive=False, verbosity=0)
    collected = sorted(path.name for path in (tmp_path / "ssesync").iterdir())
    assert {"ssesync.d.ts", "ssesync.js"} <= set(collected)
    assert len(collected) == 4  # each with a name that has a hash, too
