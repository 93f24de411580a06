"""Starts the chat under gunicorn and follows its lobby in the terminal, until Ctrl-C.

Environment: PORT (a free one without it), EVENTS, the number of events after which it ends by itself, and CHAT_FOLDER,
where the chat keeps its files (without it they are thrown away in the end).
"""

import itertools
import os
import secrets
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import requests

from ssesync import Backoff, EventSource

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from terminal import faint, paint, run  # noqa: E402

# Seconds between two things that the guide says.
PACE = float(os.environ.get("CHAT_PACE", 4))
TOUR = [
    "Welcome! I am a thread in the terminal that started all this. I write to the SQLite file, and ask no server.",
    "Open this page in a private window too: there you are somebody else, perhaps in the other worker, and can talk.",
    "Kill a worker: kill -9 {worker}. The pages come back with the last event's id and get what they missed.",
    "From another terminal, in example_projects/flask_chat: CHAT_FOLDER={folder} python say.py lobby 'Hello!'",
    "That was all from me. The floor is yours.",
]


def follow(url, events, server):
    """Print what happens in the lobby, and have the guide speak; returns how many events there were in the end."""
    count = 0
    with requests.Session() as session:
        session.trust_env = False  # a proxy has no business with 127.0.0.1
        session.post(f"{url}api/me", json={"name": "terminal"}, timeout=30).raise_for_status()
        room = session.get(f"{url}api/rooms/lobby", timeout=30).json()
        source = EventSource(
            f"{url}api/rooms/lobby/events",
            session=session,
            last_event_id=room["lastEventId"],
            backoff=Backoff(max_delay=2, max_elapsed=20),
            on_retry=lambda error, delay, attempt: print(faint(f"  lost    coming back in {delay:.1f} s"), flush=True),
        )
        ended = threading.Event()
        speaker = threading.Thread(target=guide, args=(server, events, ended), daemon=True)
        try:
            for event in source:
                if text := line(event):
                    if not count:
                        speaker.start()  # now that the first is told who is here
                    count += 1
                    print(text, flush=True)
                if count and count == events:
                    break
        finally:
            source.close()
            # Before the server is ended, and the files are gone.
            ended.set()
            if speaker.is_alive():
                speaker.join(10)
    return count


def line(event):
    """An event in words; ``None`` for those that only a page has a use for."""
    if event.type == "say":
        said = event.json()
        clock = time.strftime("%H:%M", time.localtime(said["time"]))
        colour = 31 + sum(map(ord, said["person"])) % 6
        return f"  {faint(clock)}   {paint(plain(said['name']), f'1;{colour}')}  {plain(said['text'])}"
    if event.type == "people":
        return f"  {faint('here    ' + ', '.join(plain(each['name']) for each in event.json()))}"
    if event.type == "room":
        return f"  {faint('room    ' + plain(event.json()['title']))}"
    if event.type == "reset":
        return f"  {faint('reset   some of it was missed')}"
    return None


def plain(text):
    """What a terminal is not moved by."""
    return "".join(c if c.isprintable() else " " for c in text)


def guide(server, events, ended):
    """Another process than those that serve the pages, and no request: it publishes all the same."""
    from app import create_app, post, sse

    app = create_app()
    # Whoever wants a number of events gets them.
    clock = (f"It is {time.strftime('%H:%M:%S')}." for _ in itertools.count())
    for text in itertools.chain(TOUR, clock if events else ()):
        worker = next((child.pid for child in psutil.Process(server.pid).children()), "")
        said = text.format(worker=worker, folder=app.config["FOLDER"])
        post(app.extensions["chat"], sse, "lobby", "guide", "Guide", said, secrets.token_hex(8))
        if ended.wait(PACE):
            return


def main():
    with tempfile.TemporaryDirectory(prefix="flask_chat-", ignore_cleanup_errors=True) as folder:
        os.environ.setdefault("CHAT_FOLDER", folder)
        return run(HERE, follow)


if __name__ == "__main__":
    sys.exit(main())
