"""``manage.py tell ada "Your parcel is here."``: a note for one user."""

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from board.models import Note


class Command(BaseCommand):
    help = "Leave a note for one user. It appears on the user's page at once, and stays until the user clears it."

    def add_arguments(self, parser):
        parser.add_argument("user")
        parser.add_argument("text")

    def handle(self, *args, user, text, **options):
        users = get_user_model()
        try:
            to = users.objects.get_by_natural_key(user)
        except users.DoesNotExist:
            raise CommandError(f"there is no user {user}") from None
        Note.objects.create(to=to, text=text)
