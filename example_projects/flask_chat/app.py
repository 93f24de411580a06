"""A chat with rooms, names, history and presence."""

import re
import secrets
import unicodedata
from pathlib import Path
from urllib.parse import quote

from flask import Flask, abort, current_app, g, redirect, render_template, request, session
from store import Store
from werkzeug.exceptions import HTTPException

from ssesync_flask import SSE

sse = SSE()

LONGEST_NAME, LONGEST_TITLE, LONGEST_TEXT, MOST_ROOMS = 30, 30, 2000, 50


def create_app(**config):
    app = Flask(__name__)
    app.config.from_mapping(
        FOLDER=app.instance_path,  # the folder of the chat's files
        HISTORY=60,  # messages that a page shows when a room is opened
        MAX_CONTENT_LENGTH=64 * 1024,
        SESSION_COOKIE_NAME="flask_chat",
        # Pages of other sites can't send messages with a visitor's session.
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=30 * 86400,
        # Keep-alives that the page's script can see, so that it notices a dead connection.
        SSESYNC={"retry": 1000, "keep_alive_event": "ping", "same_origin_only": True},
    )
    app.config.from_prefixed_env("CHAT")  # CHAT_FOLDER=/var/lib/chat
    app.config.from_mapping(config)
    folder = Path(app.config["FOLDER"]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    app.extensions["chat"] = store = Store(folder / "chat.db")
    app.secret_key = store.secret()
    # Every process that opens the same file publishes to the same pages, for example say.py.
    app.config.setdefault("SSESYNC_BROKER", f"sqlite:///{quote(str(folder / 'events.db'))}")
    sse.init_app(app)
    app.add_url_rule("/", view_func=page)
    app.add_url_rule("/<room>", view_func=page)
    app.add_url_rule("/api/me", view_func=sign_in, methods=["POST"])
    app.add_url_rule("/api/me", view_func=sign_out, methods=["DELETE"])
    app.add_url_rule("/api/rooms", view_func=make_room, methods=["POST"])
    app.add_url_rule("/api/rooms/<room>", view_func=room_state)
    app.add_url_rule("/api/rooms/<room>/messages", view_func=add_message, methods=["POST"])
    app.add_url_rule("/api/rooms/<room>/events", view_func=events)
    app.register_error_handler(HTTPException, explain)
    return app


def store():
    return current_app.extensions["chat"]


def page(room="lobby"):
    if not store().has_room(room):
        return redirect("/")
    g.nonce = secrets.token_urlsafe(16)
    answer = current_app.make_response(render_template("chat.html", room=room, longest=LONGEST_TEXT))
    # Messages are never inserted as HTML. If one were, this policy would still prevent scripts.
    answer.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'nonce-{g.nonce}'; style-src 'nonce-{g.nonce}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return answer


def sign_in():
    """A person may take any name, also one in use. Persons are distinguished by a random number."""
    name = field("name", LONGEST_NAME)
    session.permanent = True
    session.setdefault("person", secrets.token_hex(8))
    session["name"] = name
    return me()


def sign_out():
    """Ends the person's streams, on every device and in every worker."""
    person = me()["person"]
    session.clear()
    sse.revoke(person)
    return {}


def room_state(room):
    """The state of a room for a page: its messages, and the position from which the page follows the events."""
    person = me()
    if not store().has_room(room):
        abort(404, "There is no such room.")
    # First the position and then the messages. A message that is added in between is in both, and the page recognises
    # it by its id; in the other order it would be in neither.
    last_event_id = sse.broker.position()
    return {
        "me": person,
        "messages": store().messages(room, current_app.config["HISTORY"]),
        "lastEventId": last_event_id,
        "people": store().people(room),
        "rooms": store().rooms(),
    }


def events(room):
    """The events of a room, and the activity of other rooms."""
    person, stream = session.get("person", ""), secrets.token_hex(8)
    keep, announce = store(), announcer(room)

    def arrive(subscription):
        keep.arrive(stream, room, person, session["name"])
        announce()

    def leave(reason, stats):
        keep.leave(stream)
        announce()

    return sse.subscribe(
        f"room:{room}", "rooms", authorize=may_read, on_connect=arrive, on_close=leave, key=person
    )  # fmt: skip


def may_read(request, channel):
    """Check the room, as it comes from the URL and a client may send any text."""
    return "person" in session and (channel == "rooms" or store().has_room(channel.removeprefix("room:")))


def announcer(room):
    """Make a function that publishes the list of people in a room. It is also called after the request, without a
    context."""
    keep, app = store(), current_app._get_current_object()

    def announce():
        with app.app_context():
            sse.publish(f"room:{room}", keep.people(room), type="people")

    return announce


def add_message(room):
    person = me()
    if not store().has_room(room):
        abort(404, "There is no such room.")
    text = field("text", LONGEST_TEXT)
    # The page makes the id, so that it can send a message again if it got no answer.
    given = field("id", 64)
    message = post(store(), sse, room, person["person"], person["name"], text, given)
    if message is None:
        abort(409, "Another message has this id.")
    return message, 201


def post(store, broker, room, person, name, text, id):
    """Store a message, then publish it. In this order, so that a client that gets the event can read the message."""
    message = store.add_message(room, person, name, text, id)
    if message is not None:
        broker.publish(f"room:{room}", message, type="say")
        broker.publish("rooms", {"room": room}, type="activity")
    return message


def make_room():
    me()
    title = field("title", LONGEST_TITLE)
    plain = unicodedata.normalize("NFKD", title.lower()).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or secrets.token_hex(3)
    if len(store().rooms()) >= MOST_ROOMS:
        abort(409, "There are too many rooms.")
    if store().add_room(slug, title):
        sse.publish("rooms", {"slug": slug, "title": title}, type="room")
    return {"slug": slug}, 201


def me():
    if "person" not in session:
        abort(401, "Sign in first.")
    return {"person": session["person"], "name": session["name"]}


def field(name, longest):
    """A text of the request, with at least one visible character."""
    body = request.get_json()
    text = body.get(name) if isinstance(body, dict) else None
    text = text if isinstance(text, str) else ""
    # Without control characters and lone surrogates.
    text = "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs")).strip()
    if len(text) > longest or not any(c.isprintable() for c in text):
        abort(400, f"“{name}” takes 1 to {longest} characters.")
    return text


def explain(error):
    return {"error": error.description}, error.code
