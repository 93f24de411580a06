"""A chat: rooms, names, history, and who is there."""

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
        FOLDER=app.instance_path,  # where the chat keeps its files
        HISTORY=60,  # messages that who comes to a room is shown
        MAX_CONTENT_LENGTH=64 * 1024,
        SESSION_COOKIE_NAME="flask_chat",
        # No other site's page can speak in a visitor's name.
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=30 * 86400,
        SSESYNC={"retry": 1000, "same_origin_only": True},
    )
    app.config.from_prefixed_env("CHAT")  # CHAT_FOLDER=/var/lib/chat
    app.config.from_mapping(config)
    folder = Path(app.config["FOLDER"]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    app.extensions["chat"] = store = Store(folder / "chat.db")
    app.secret_key = store.secret()
    # Any process that opens the same file publishes to the same pages: say.py is one.
    app.config.setdefault("SSESYNC_BROKER", f"sqlite:///{quote(str(folder / 'events.db'))}")
    sse.init_app(app)
    app.add_url_rule("/", view_func=page)
    app.add_url_rule("/<room>", view_func=page)
    app.add_url_rule("/api/me", view_func=sign_in, methods=["POST"])
    app.add_url_rule("/api/me", view_func=sign_out, methods=["DELETE"])
    app.add_url_rule("/api/rooms", view_func=make_room, methods=["POST"])
    app.add_url_rule("/api/rooms/<room>", view_func=look)
    app.add_url_rule("/api/rooms/<room>/messages", view_func=say, methods=["POST"])
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
    # Nothing that anyone says is ever read as HTML; if it were, it still could not do anything.
    answer.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'nonce-{g.nonce}'; style-src 'nonce-{g.nonce}'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return answer


def sign_in():
    """Everybody gets the name they ask for. What tells people apart is a number that they don't choose."""
    name = field("name", LONGEST_NAME)
    session.permanent = True
    session.setdefault("person", secrets.token_hex(8))
    session["name"] = name
    return me()


def sign_out():
    """Ends what the person has open, on every device and in every worker."""
    person = me()["person"]
    session.clear()
    sse.revoke(person)
    return {}


def look(room):
    """What a page needs to show a room: what was said, and where in the stream of events it goes on."""
    person = me()
    if not store().has_room(room):
        abort(404, "There is no such room.")
    # First the place and then the messages. What is said in between is in both, and the page knows it by its id;
    # the other way round it would be in neither.
    last_event_id = sse.broker.position()
    return {
        "me": person,
        "messages": store().messages(room, current_app.config["HISTORY"]),
        "lastEventId": last_event_id,
        "people": store().people(room),
        "rooms": store().rooms(),
    }


def events(room):
    """All that happens in a room, and which other rooms are talked in."""
    person, stream = session.get("person", ""), secrets.token_hex(8)
    keep, tell = store(), teller(room)

    def arrive(subscription):
        keep.arrive(stream, room, person, session["name"])
        tell()

    def leave(reason, stats):
        keep.leave(stream)
        tell()

    return sse.subscribe(
        f"room:{room}", "rooms", authorize=may_read, on_connect=arrive, on_close=leave, key=person
    )  # fmt: skip


def may_read(request, channel):
    """The room comes from the address, so it is whatever a client likes."""
    return "person" in session and (channel == "rooms" or store().has_room(channel.removeprefix("room:")))


def teller(room):
    """A function that tells a room who is in it. It is called after the request too, when there is no context."""
    keep, app = store(), current_app._get_current_object()

    def tell():
        with app.app_context():
            sse.publish(f"room:{room}", keep.people(room), type="people")

    return tell


def say(room):
    person = me()
    if not store().has_room(room):
        abort(404, "There is no such room.")
    text = field("text", LONGEST_TEXT)
    # The page makes the id, so that it can send again what may or may not have arrived.
    given = field("id", 64)
    message = post(store(), sse, room, person["person"], person["name"], text, given)
    if message is None:
        abort(409, "Another message has this id.")
    return message, 201


def post(store, broker, room, person, name, text, id):
    """Keep a message, then tell of it. In this order: who hears of a message can look it up."""
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
        abort(409, "There are rooms enough.")
    if store().add_room(slug, title):
        sse.publish("rooms", {"slug": slug, "title": title}, type="room")
    return {"slug": slug}, 201


def me():
    if "person" not in session:
        abort(401, "Say who you are first.")
    return {"person": session["person"], "name": session["name"]}


def field(name, longest):
    """A text of the request, with something in it that can be seen."""
    told = request.get_json()
    text = told.get(name) if isinstance(told, dict) else None
    text = text if isinstance(text, str) else ""
    # Neither control characters nor halves of characters.
    text = "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs")).strip()
    if len(text) > longest or not any(c.isprintable() for c in text):
        abort(400, f"“{name}” takes 1 to {longest} characters.")
    return text


def explain(error):
    return {"error": error.description}, error.code
