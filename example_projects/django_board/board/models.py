"""The board's models. Saving one publishes an event on commit, so not a change that is rolled back."""

from django.conf import settings
from django.db import models, transaction

from ssesync_django import publish

BOARD = "board"


def channel_of(user):
    """The channel that only this user may read."""
    return f"user:{user.get_username()}"


class Notice(models.Model):
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    text = models.CharField(max_length=280)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-pk",)

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)
        publish(BOARD, self.shown(), type="notice")

    def delete(self, *args, **kwargs):
        pk = self.pk
        deleted = super().delete(*args, **kwargs)
        publish(BOARD, {"id": pk}, type="removed")
        return deleted

    def shown(self):
        """The data of the page and of events."""
        return {
            "id": self.pk,
            "author": self.author.get_username(),
            "text": self.text,
            "at": self.at,
            "thanks": [thanks.user.get_username() for thanks in self.thanks.all()],
        }

    def thank(self, user):
        """Thank the author, once. Returns whether that was the first time."""
        with transaction.atomic():
            _, new = Thanks.objects.get_or_create(notice=self, user=user)
            if new:
                Note.objects.create(to=self.author, text=f"{user} thanks you for “{shortened(self.text)}”")
        return new


class Thanks(models.Model):
    notice = models.ForeignKey(Notice, models.CASCADE, related_name="thanks")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["notice", "user"], name="once"),)

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)
        publish(BOARD, {"id": self.notice_id, "user": self.user.get_username()}, type="thanks")


class Note(models.Model):
    """A note for one user."""

    to = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    text = models.CharField(max_length=280)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-pk",)

    def save(self, *args, **kwargs):
        super().save(*args, **kwargs)
        publish(channel_of(self.to), self.shown(), type="note")

    def shown(self):
        """The data of the page and of events."""
        return {"id": self.pk, "text": self.text, "at": self.at}


def shortened(text):
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:59]}…"
