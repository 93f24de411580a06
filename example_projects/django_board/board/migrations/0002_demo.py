"""Two users for trying out the board, and some notices. Both have the password ``demo``."""

from django.contrib.auth.hashers import make_password
from django.db import migrations

NOTICES = [
    ("grace", "The projector in room 2 works again. It has a new bulb."),
    ("ada", "Tea at four on Thursdays, in the library. Bring a cup."),
    ("grace", "Found: one glove, left, blue. It waits at the front desk."),
]


def add(apps, schema_editor):
    users = apps.get_model("auth", "User").objects
    notices = apps.get_model("board", "Notice").objects
    found = {}
    for name in ("ada", "grace"):
        found[name], _ = users.get_or_create(username=name, defaults={"password": make_password("demo")})
    # Nothing is published: a migration's models don't have the methods of models.py.
    for name, text in NOTICES:
        notices.create(author=found[name], text=text)


class Migration(migrations.Migration):
    dependencies = (("board", "0001_board"), ("auth", "0012_alter_user_first_name_max_length"))
    operations = (migrations.RunPython(add, migrations.RunPython.noop),)
