"""For gunicorn: ``gunicorn wsgi``."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
application = get_wsgi_application()

import tasks  # noqa: E402, F401 - what is done for an interrupted task, also before the first request
