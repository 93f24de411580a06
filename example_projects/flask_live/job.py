"""A job of 100 steps: checksums of Python's standard library."""

import hashlib
import os
from pathlib import Path

STEPS = 100

FILES = sorted(Path(os.__file__).parent.glob("*.py"))


def run():
    """Do the steps; yields each one's number, and its last file with the checksum."""
    for step in range(1, STEPS + 1):
        result = {"file": "", "sha256": ""}
        for file in FILES[(step - 1) * len(FILES) // STEPS : step * len(FILES) // STEPS]:
            result = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        yield step, result
