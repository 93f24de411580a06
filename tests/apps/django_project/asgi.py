"""The project for ASGI servers, with the settings of the environment."""

from django.core.asgi import get_asgi_application

application = get_asgi_application()
