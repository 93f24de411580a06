"""Small applications with the same routes for bare WSGI, Flask and Django, led by the tests that drive them.

``tests.apps.bare``, ``tests.apps.flask_app`` and ``tests.apps.django_project.wsgi`` each hold an ``application``;
``tests.apps.together`` mounts all three. Routes take their parameters from the query: ``line``, the port that the test
listens on (see ``line.py``), and ``key``, under which ``facts.py`` keeps what happened.
"""
