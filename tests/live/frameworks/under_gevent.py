"""pytest under gevent, which is patched before anything else is loaded. Its arguments are pytest's."""

from gevent import monkey

monkey.patch_all()

import gc  # noqa: E402
import sys  # noqa: E402
from types import FrameType  # noqa: E402

import pytest  # noqa: E402
from greenlet import greenlet  # noqa: E402


def current_frames() -> dict[int, FrameType]:
    """``sys._current_frames`` for greenlets, which it knows nothing of: where each stands, outside of gevent."""
    frames = {}
    for candidate in gc.get_objects():
        if isinstance(candidate, greenlet) and (frame := candidate.gr_frame) is not None:
            while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("gevent"):
                frame = frame.f_back
            frames[id(candidate)] = frame
    return frames


if __name__ == "__main__":
    sys._current_frames = current_frames
    sys.exit(pytest.main(sys.argv[1:]))
