"""pytest under gevent: ``python -m tests.live.under_gevent ARGUMENTS``. Patched before anything else is loaded."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

import pytest  # noqa: E402

sys.exit(pytest.main(sys.argv[1:]))
