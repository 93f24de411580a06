"""For WSGI servers and runserver."""

import os

from django.core.wsgi import get_wsgi_application

from .. import facts

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.live.apps.django_project.settings")
application = facts.watched(get_wsgi_application())
