"""Sends a message to a room, from any process: a cron job, a deploy script, a terminal.

    python say.py lobby "The lights go out at eight."

It needs neither the server nor a request: it opens the chat's files. CHAT_FOLDER is their folder, and NAME the
sender's name.
"""

import os
import secrets
import sys

from app import create_app, post, sse


def main():
    if len(sys.argv) != 3:
        return "usage: python say.py ROOM TEXT"
    room, text = sys.argv[1:]
    app = create_app()
    if not app.extensions["chat"].has_room(room):
        return f"There is no room {room!r}."
    name = os.environ.get("NAME", "say.py")
    post(app.extensions["chat"], sse, room, f"script-{name}", name, text, secrets.token_hex(8))
    return None


if __name__ == "__main__":
    sys.exit(main())
