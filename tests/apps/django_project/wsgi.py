"""The project for WSGI servers, with the settings of the environment."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
