"""Programs that tests start and that Python does not bring along."""

from __future__ import annotations

import os
import shutil

import pytest


def find_program(name: str, package: str) -> str:
    """The path of a program. Without it the test is skipped, or fails under CI=true.

    :param package: the package of Debian that has it.
    """
    path = shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if path is None:
        reason = f"{name} is not installed (Debian: {package})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
