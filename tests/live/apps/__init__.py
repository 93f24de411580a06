"""Small applications with the same routes for bare WSGI, Flask and Django, led by the tests that drive them.

``bare``, ``flask_app`` and ``django_project.wsgi`` each hold an ``application``; ``together`` mounts all three. Routes
take their parameters from the query: ``line``, the port that the test listens on (see ``line.py``), and ``key``, under
which ``facts.py`` keeps what happened.
"""
