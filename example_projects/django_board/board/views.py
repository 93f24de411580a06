"""The page, what its buttons do, and the stream that keeps it up to date."""

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
    """For a page that could not follow the stream all the way."""
    if not request.user.is_authenticated:
        return HttpResponse(status=403)
    return JsonResponse(state_for(request.user))


def state_for(user):
    # Asked for first: what is published while the rest is looked up comes through the stream, which begins there.
    position = get_broker().position()
    notices = Notice.objects.select_related("author").prefetch_related("thanks__user")[:100]
    return {
        "position": position,
        "me": user.get_username(),
        "notices": [notice.shown() for notice in notices],
        "notes": [note.shown() for note in Note.objects.filter(to=user)[:50]],
    }


class Events(LoginRequiredMixin, ChannelView):
    """What is new on the board, and what is for this user alone, in one stream."""

    raise_exception = True  # 403: a redirect to the login page is nothing that a stream could follow

    def get_channels(self, request):
        return [BOARD, channel_of(request.user)]


def action(view):
    """Of a button: 403 instead of the login page, for whose session has ended meanwhile."""

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
