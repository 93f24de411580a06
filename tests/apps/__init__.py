"""The applications that the servers of the tests run: one in Flask, one in Django, and plain WSGI.

``flask_app`` makes a Flask application of blueprints, one for each subject. ``django_project`` is one project: its
views and settings are modules by subject, and its URLs are the same for all. ``wsgi`` has what needs no framework. A
module that lies here beside them serves two or three of these in one process, each under its name: ``frameworks``,
``detached``, ``bodies`` and others.

What serves has the name ``application``. The functions of ``tests/servers.py`` that start servers take an application
by the name of its module: ``detached``, ``flask_app.answers``, ``wsgi.finishing``, ``django_project.wsgi``.

A test can have a producer wait for it (``line.py``), read what happened in the process (``facts.py``) and what the
process holds (``process.py``), and call its functions while all of its threads serve (``control.py``). A program that
is special to one test, for example one that must crash, lies beside that test.
"""
