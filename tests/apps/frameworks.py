"""The same routes in all three frameworks: ``/bare``, ``/flask``, ``/django``; under ``/checked`` again, in the
standard library's checker of both sides of WSGI. The tests control the producers.

Routes take their parameters from the query: ``line``, the port that the test listens on (see ``line.py``), and ``key``,
under which ``facts.py`` keeps what happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from wsgiref.validate import validator

from . import facts
from .django_project.wsgi import application as django_application
from .flask_app import frameworks as in_flask
from .wsgi import frameworks as in_wsgi
from .wsgi import mounted

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

#: What runserver serves.
django = facts.watched(django_application)
PLACES: dict[str, WSGIApplication] = {
    "/bare": facts.watched(in_wsgi.route),
    "/flask": facts.watched(in_flask.route),
    "/django": django,
}
PLACES |= {f"/checked{place}": validator(application) for place, application in PLACES.items()}
application = mounted(PLACES)
