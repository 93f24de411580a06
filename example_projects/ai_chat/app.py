"""A chat with a language model. An answer survives reloads, can be stopped, and is followed by any number of clients.

Two kinds of clients read the same answers: the page of this example, with an EventSource, and applications that use
AI SDK (the npm package ai), by its UI message stream protocol.
"""

import re
import uuid
from pathlib import Path

import model
from flask import Flask, abort, current_app, redirect, render_template, request, url_for
from store import Store

from ssesync import Event, RunUnknown
from ssesync.channels.envelope import Envelope
from ssesync_flask import SSE

sse = SSE()

# A chat's id can't be guessed: each client that has it may read the chat and write to it. With users, the subject is
# the user's id, and the views also check whose chat it is.
SUBJECT = ""
LONGEST = 4000


def create_app(**config):
    app = Flask(__name__)
    app.config.from_mapping(
        FOLDER=app.instance_path,
        PAUSE=0.06,  # seconds between two words of the model that is built in
        MAX_CONTENT_LENGTH=2**20,
        # A page reconnects a second after its connection broke, and sees keep-alives. A worker that stops lets its
        # answers finish, for ten seconds at most.
        SSESYNC={"retry": 1000, "keep_alive_event": "ping", "drain_timeout": 10},
    )
    app.config.from_prefixed_env("CHAT")  # CHAT_FOLDER=/var/lib/chat
    app.config.from_mapping(config)
    folder = Path(app.config["FOLDER"]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    app.extensions["chat"] = Store(folder / "chat.db")
    app.config.setdefault("SSESYNC_BROKER", f"sqlite:///{folder}/runs.db")
    sse.init_app(app)
    app.add_url_rule("/", view_func=new_chat)
    app.add_url_rule("/chats/<chat>", view_func=page)
    app.add_url_rule("/chats/<chat>", view_func=ask, methods=["POST"])
    app.add_url_rule("/chats/<chat>/questions", view_func=follow_questions)
    app.add_url_rule("/chats/<chat>/answers/<int:number>", view_func=follow_answer)
    app.add_url_rule("/api/chat", view_func=ask_by_sdk, methods=["POST"])
    app.add_url_rule("/api/chat/<chat>/stream", view_func=reconnect_sdk)
    app.add_url_rule("/api/chat/<chat>/stop", view_func=stop, methods=["POST"])
    return app


def store():
    return current_app.extensions["chat"]


# What both kinds of clients share


def check(chat):
    """Clients choose the ids of chats, and channels are named after them."""
    if not isinstance(chat, str) or not re.fullmatch(r"[\w-]{16,64}", chat, re.ASCII):
        abort(404)


def is_text(value):
    try:
        return 0 < len(value.strip()) <= LONGEST and bool(value.encode())
    except (AttributeError, UnicodeError):  # JSON may have other values, and half a surrogate pair
        return False


def run_name(chat, number):
    return f"answer:{chat}:{number}"


def start(chat, id, question, again=False):
    """Store a question and start its answer. If the same question is sent twice, there is one answer all the same."""
    check(chat)
    if not (is_text(id) and is_text(question)):
        abort(400)
    if again:
        stop(chat)  # an answer that is still being made is of no use any more
    number = store().ask(chat, id, question, again)
    arguments = store(), chat, number, current_app.config["PAUSE"]
    run = sse.start_run(run_name(chat, number), answer, *arguments, subject=SUBJECT)
    # Other tabs show the question, too.
    sse.publish(f"chat:{chat}", {"number": number, "question": question})
    return number, run


def answer(store, chat, number, pause):
    """A run's producer. It yields AI SDK's chunks, but not the last one, which follows from the run's end."""
    turns = [turn for turn in store.turns(chat) if turn["number"] <= number]
    text, complete = "", False
    try:
        yield {"type": "start", "messageId": f"answer-{number}"}
        yield {"type": "text-start", "id": "text"}
        for delta in model.answer(turns, pause):
            text += delta
            yield {"type": "text-delta", "id": "text", "delta": delta}
        yield {"type": "text-end", "id": "text"}
        complete = True
    finally:  # also if it was stopped
        store.finish(number, text, complete)


def last_run(chat):
    """The run of the chat's last answer."""
    turns = store().turns(chat)
    if not turns:
        raise RunUnknown(chat)
    return sse.broker.get_run(run_name(chat, turns[-1]["number"]), subject=SUBJECT)


def stop(chat):
    try:
        return {"stopped": last_run(chat).stop()}
    except RunUnknown:
        return {"stopped": False}


# The page


def new_chat():
    return redirect(url_for("page", chat=uuid.uuid4().hex))


def page(chat):
    check(chat)
    # First the position, then the questions: one that is asked in between is in both, and the page shows it once.
    position = sse.broker.position()
    return render_template("chat.html", chat=chat, position=position, turns=store().turns(chat), longest=LONGEST)


def ask(chat):
    try:
        id, question = request.json["id"], request.json["question"]
    except (KeyError, TypeError):
        abort(400)
    number, _ = start(chat, id, question)
    return {"number": number}, 202


def follow_questions(chat):
    check(chat)
    return sse.subscribe(f"chat:{chat}")


def follow_answer(chat, number):
    check(chat)
    return sse.follow_run(run_name(chat, number), subject=SUBJECT)


# AI SDK. Its ChatTransport sends the question by POST, and asks by GET for the answer that is in progress. Its protocol
# has no types of events: what a run's end means is a chunk, which here stands for the run's final event.

ERROR = '{"type":"error","errorText":"The answer broke off."}'
CHUNKS = Envelope(
    done=b'{"type":"finish"}',
    stopped=b'{"type":"abort"}',
    failed=ERROR.encode(),
    interrupted=ERROR.encode(),
    last=b"[DONE]",
)


def ask_by_sdk():
    try:
        chat, message = request.json["id"], request.json["messages"][-1]  # the others are in the store
        question = "".join(part["text"] for part in message["parts"] if part["type"] == "text")
        again = request.json.get("trigger") == "regenerate-message"
        id = message["id"]
    except (AttributeError, IndexError, KeyError, TypeError):
        abort(400)
    _, run = start(chat, id, question, again)
    return ui_message_stream(run)


def reconnect_sdk(chat):
    try:
        run = last_run(chat)
    except RunUnknown:
        return "", 204
    return ("", 204) if run.state.ended else ui_message_stream(run)


def ui_message_stream(run):
    return sse.follow_run(
        run.name,
        subject=SUBJECT,
        envelope=CHUNKS,
        headers={"x-vercel-ai-ui-message-stream": "v1"},
        # This client neither resumes by an event's ID nor knows keep-alive events. If its worker stops too early, it
        # gets an error.
        resumable=False,
        error_event=Event(ERROR),
        keep_alive_event=None,
    )
