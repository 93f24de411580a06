"""The tools of benchmarks.fanout that are no Python packages: its C programs and better-sse, both kept in build/."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parent / "build" / "fanout"
_INSTALL = 300


@functools.cache
def compiled(name: str) -> tuple[Path | None, str]:
    """The program ``benchmarks/NAME.c``, or ``None`` and why there is none."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None, "a C compiler"
    source = HERE / f"{name}.c"
    program = CACHE / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if program.exists():
        return program, ""
    CACHE.mkdir(parents=True, exist_ok=True)
    # Others may compile the same at the same time, and one that runs can't be written over.
    half = program.with_suffix(f".{os.getpid()}")
    command = [compiler, "-O2", "-pthread", "-o", str(half), str(source)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        return None, f"a C compiler that takes {source.name} ({last})"
    half.replace(program)
    return program, ""


@functools.cache
def node_server() -> tuple[Path | None, str]:
    """The server of fanout_node where its packages are installed, or ``None`` and why it isn't anywhere."""
    for command in ("node", "npm"):
        if shutil.which(command) is None:
            return None, command
    folder = CACHE / "node"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "server.mjs"):
        shutil.copyfile(HERE / "fanout_node" / name, folder / name)
    # npm itself checks whether this version is installed, and makes no request then.
    install = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--prefer-offline"]
    try:
        run = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=_INSTALL, check=False)
    except subprocess.TimeoutExpired:
        return None, "better-sse (npm install takes too long)"
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        return None, f"better-sse (npm install: {last})"
    return folder / "server.mjs", ""


def node_versions() -> str:
    """Node's version and better-sse's, as far as they are there."""
    server, _ = node_server()
    if server is None:
        return ""
    asked = ["node", "-p", "process.version + ' ' + require('./node_modules/better-sse/package.json').version"]
    run = subprocess.run(asked, cwd=server.parent, capture_output=True, text=True, check=False)
    node, _, package = run.stdout.strip().partition(" ")
    return f"node {node.lstrip('v')}, better-sse {package}"
