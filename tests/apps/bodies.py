"""Requests with bodies: ``/bare/body``, ``/flask/body`` and ``/django/body``. A producer reads one when its stream has
left the server; ``how`` in the query is the object by which it does, ``before`` how many bytes the view reads first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .django_project.wsgi import application as django_application
from .flask_app import bodies, create_app
from .process import log_to_stderr
from .wsgi import bodies as in_wsgi
from .wsgi import mounted

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

log_to_stderr()
PLACES: dict[str, WSGIApplication] = {
    "/bare": in_wsgi.body,
    "/flask": create_app(bodies.blueprint),
    "/django": django_application,
}
application = mounted(PLACES)
