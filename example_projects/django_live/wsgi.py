"""For gunicorn: ``gunicorn --threads 4 -c python:ssesync.gunicorn wsgi``."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
application = get_wsgi_application()
