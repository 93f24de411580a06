"""The machine's busiest processes, live, and a job with a progress bar."""

import time

import job as work
from django.conf import settings
from django.http import Http404
from django.shortcuts import render
from django.views import View
from monitor import Top as Monitor

from ssesync import Event
from ssesync_django import event_stream, event_writer


def page(request):
    return render(request, "live.html")


class Top(View):
    """A generator view, here a class's method: every item is an event, dictionaries as JSON."""

    @event_stream
    def get(self, request):
        limit = request.GET.get("limit", "8")
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 4):
            raise Http404("limit takes a number below 1,000")  # before the first event: a real 404
        monitor = Monitor()
        yield Event("ready", type="hello")
        while True:
            time.sleep(settings.LIVE_INTERVAL)
            yield monitor.sample(int(limit))


def is_finished(last_event_id):
    """Whether this client has the job's last event. It is then answered with 204, and does not reconnect."""
    return work.steps_done(last_event_id) == work.STEPS


@event_writer(finished=is_finished)
def job(request, w):
    """An imperative view. IDs are the percentage, so a client that reconnects resumes the job there."""
    for percent, result in work.run(done=work.steps_done(w.last_event_id)):
        if w.cancelled.wait(settings.LIVE_PAUSE):
            return
        if percent < work.STEPS:
            w.write_event(result, type="progress", id=percent)
        else:
            w.finish(result, type="done", id=percent)
