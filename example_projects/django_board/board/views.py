"""The page, the actions of its buttons, and the stream that updates it."""

from django.contrib.auth.decorators import login_required
from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_POST, require_safe

from ssesync_django import ChannelView, get_broker, publish

from .models import BOARD, Note, Notice, channel_of


@require_safe
@login_required
def page(request):
    return render(request, "board/board.html", {"state": state_for(request.user)})


@require_safe
def state(request):
    """The state, for a page that has missed events."""
    if not request.user.is_authenticated:
        return HttpResponse(status=403)
    return JsonResponse(state_for(request.user))


def state_for(user):
    # Read first: the stream begins here, so it has the events that are published during the following queries.
    position = get_broker().position()
    notices = Notice.objects.select_related("author").prefetch_related("thanks__user")[:100]
    return {
        "position": position,
        "me": user.get_username(),
        "notices": [notice.shown() for notice in notices],
        "notes": [note.shown() for note in Note.objects.filter(to=user)[:50]],
    }


class Events(LoginRequiredMixin, ChannelView):
    """The events of the board and of this user, in one stream."""

    raise_exception = True  # 403, as a stream can't follow a redirect to the login page

    def get_channels(self, request):
        return [BOARD, channel_of(request.user)]


def action(view):
    """Make the view of a button: if the session has ended, it answers 403 instead of the login page."""

    def wrapper(request, *args, **kwargs):
        if not request.user.is_authenticated:
            return HttpResponse("You are signed out.", status=403)
        return view(request, *args, **kwargs)

    return require_POST(wrapper)


@action
def pin(request):
    text = request.POST.get("text", "").replace("\r\n", "\n").strip()
    longest = Notice._meta.get_field("text").max_length
    if not 1 <= len(text) <= longest or "\0" in text:
        return HttpResponse(f"A notice has 1 to {longest} characters.", status=400)
    Notice.objects.create(author=request.user, text=text)
    return HttpResponse(status=204)


@action
def remove(request, pk):
    get_object_or_404(Notice, pk=pk, author=request.user).delete()
    return HttpResponse(status=204)


@action
def thank(request, pk):
    notice = get_object_or_404(Notice.objects.exclude(author=request.user), pk=pk)
    notice.thank(request.user)
    return HttpResponse(status=204)


@action
def clear(request):
    Note.objects.filter(to=request.user).delete()
    publish(channel_of(request.user), "", type="cleared")
    return HttpResponse(status=204)
