"""Two users to try the board with, and something to read. Both have the password ``demo``."""

from django.contrib.auth.hashers import make_password
from django.db import migrations

NOTICES = [
    ("grace", "The projector in room 2 works again. It wanted a new bulb, and patience."),
    ("ada", "Tea at four on Thursdays, in the library. Bring a cup."),
    ("grace", "Found: one glove, left, blue. It waits at the front desk."),
]


def add(apps, schema_editor):
    users = apps.get_model("auth", "User").objects
    notices = apps.get_model("board", "Notice").objects
    found = {}
    for name in ("ada", "grace"):
        found[name], _ = users.get_or_create(username=name, defaults={"password": make_password("demo")})
    # Nobody is told: a migration's models have no save() of ours.
    for name, text in NOTICES:
        notices.create(author=found[name], text=text)


class Migration(migrations.Migration):
    dependencies = (("board", "0001_board"), ("auth", "0012_alter_user_first_name_max_length"))
    operations = (migrations.RunPython(add, migrations.RunPython.noop),)
