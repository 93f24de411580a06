"""Starts the chat under gunicorn and follows its lobby in the terminal, until Ctrl-C.

Environment: PORT (by default a free one), EVENTS, the number of events after which it ends by itself, and CHAT_FOLDER,
the folder of the chat's files (by default a temporary one).
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

# Seconds between two messages of the guide.
PACE = float(os.environ.get("CHAT_PACE", 4))
TOUR = [
    "Hello! I am a thread of the demo in the terminal. I write to the SQLite file, and make no request to the server.",
    "Open this page in a private window too: there you are another person, perhaps in the other worker.",
    "Kill a worker: kill -9 {worker}. The pages reconnect with the last event's id and get the events they missed.",
    "From another terminal, in example_projects/flask_chat: CHAT_FOLDER={folder} python say.py lobby 'Hello!'",
    "This was the last message of the tour.",
]


def follow(url, events, server):
    """Print the events of the lobby while the guide writes messages. Returns the number of events."""
    count = 0
    with requests.Session() as session:
        session.trust_env = False  # no proxy for 127.0.0.1
        session.post(f"{url}api/me", json={"name": "terminal"}, timeout=30).raise_for_status()
        room = session.get(f"{url}api/rooms/lobby", timeout=30).json()
        source = EventSource(
            f"{url}api/rooms/lobby/events",
            session=session,
            last_event_id=room["lastEventId"],
            backoff=Backoff(max_delay=2, max_elapsed=20),
            on_retry=lambda error, delay, attempt: print(faint(f"  lost    reconnecting in {delay:.1f} s"), flush=True),
        )
        ended = threading.Event()
        speaker = threading.Thread(target=guide, args=(server, events, ended), daemon=True)
        try:
            for event in source:
                if text := line(event):
                    if not count:
                        speaker.start()  # after the first list of people
                    count += 1
                    print(text, flush=True)
                if count and count == events:
                    break
        finally:
            source.close()
            # Before the server is stopped and the files are deleted.
            ended.set()
            if speaker.is_alive():
                speaker.join(10)
    return count


def line(event):
    """An event as a line of text; ``None`` for events that only a page uses."""
    if event.type == "say":
        message = event.json()
        clock = time.strftime("%H:%M", time.localtime(message["time"]))
        colour = 31 + sum(map(ord, message["person"])) % 6
        return f"  {faint(clock)}   {paint(plain(message['name']), f'1;{colour}')}  {plain(message['text'])}"
    if event.type == "people":
        return f"  {faint('here    ' + ', '.join(plain(each['name']) for each in event.json()))}"
    if event.type == "room":
        return f"  {faint('room    ' + plain(event.json()['title']))}"
    if event.type == "reset":
        return f"  {faint('reset   some events were missed')}"
    return None


def plain(text):
    """The text without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def guide(server, events, ended):
    """Publish messages from this process, which does not serve the pages and has no request."""
    from app import create_app, post, sse

    app = create_app()
    # With EVENTS, messages continue until that number is reached.
    clock = (f"It is {time.strftime('%H:%M:%S')}." for _ in itertools.count())
    for text in itertools.chain(TOUR, clock if events else ()):
        worker = next((child.pid for child in psutil.Process(server.pid).children()), "")
        text = text.format(worker=worker, folder=app.config["FOLDER"])
        post(app.extensions["chat"], sse, "lobby", "guide", "Guide", text, secrets.token_hex(8))
        if ended.wait(PACE):
            return


def main():
    with tempfile.TemporaryDirectory(prefix="flask_chat-", ignore_cleanup_errors=True) as folder:
        os.environ.setdefault("CHAT_FOLDER", folder)
        return run(HERE, follow)


if __name__ == "__main__":
    sys.exit(main())
