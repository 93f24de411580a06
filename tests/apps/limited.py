"""Streams that are limited by address, for tests with a proxy in front: Flask and Django, as they come and with
``REMOTE_ADDR`` set from the proxy's header as the pages describe it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from werkzeug.middleware.proxy_fix import ProxyFix

from .django_project.wsgi import application as django_application
from .flask_app import create_app, limited
from .wsgi import mounted

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def with_query(application: WSGIApplication, query: str) -> WSGIApplication:
    def changed(environ: Any, start_response: Any) -> Any:
        environ["QUERY_STRING"] = query
        return application(environ, start_response)

    return changed


flask_application = create_app(limited.blueprint)
PLACES: dict[str, WSGIApplication] = {
    "/flask": flask_application,
    "/flask_mended": ProxyFix(flask_application, x_for=1),
    "/django": django_application,
    "/django_mended": with_query(django_application, "mended"),
}
application = mounted(PLACES)
