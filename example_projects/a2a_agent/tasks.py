"""Tasks: each is a run, whose events are A2A's. It goes on without clients, and is kept for a day after its end.

If the worker that makes a task is killed or stopped, another one begins it anew: its next *attempt*, which is a run of
its own. After the last attempt the task has failed.
"""

import contextlib
import uuid
from datetime import datetime, timezone

from agent import answer
from rpc import Code, failure

from ssesync import BrokerUnavailable, Event, RunState, RunUnknown, StreamClosed
from ssesync.channels.envelope import jsonrpc_result
from ssesync_django import follow_run, get_broker, start_run

#: How many times a task is begun at most: it may be the task that kills its worker.
ATTEMPTS = 3
STATES = {
    RunState.RUNNING: "TASK_STATE_WORKING",
    RunState.DONE: "TASK_STATE_COMPLETED",
    RunState.FAILED: "TASK_STATE_FAILED",
    RunState.STOPPED: "TASK_STATE_CANCELED",
}
#: Whose tasks they are. With a login, give each user's own, and here the user of the request.
SUBJECT = ""


def begin(message, context, id=None, attempt=1):
    """Begin a task, or its next attempt. However often an attempt is begun, it is made once."""
    id = id or str(uuid.uuid4())
    message = {**message, "taskId": id, "contextId": context}
    options = {"max_seconds": 3600, "retain": 86400}
    return start_run(None, f"task:{id}:{attempt}", work, message, subject=SUBJECT, **options)


def attempt_of(id, attempt):
    return get_broker().get_run(f"task:{id}:{attempt}", subject=SUBJECT)


def work(message):
    """The events of a task but for the last one, which follows from how this ends."""
    ids = {"taskId": message["taskId"], "contextId": message["contextId"]}
    status = {"state": "TASK_STATE_SUBMITTED", "timestamp": now()}
    yield {"task": {"id": ids["taskId"], "contextId": ids["contextId"], "status": status, "history": [message]}}
    yield {"statusUpdate": {**ids, "status": {"state": "TASK_STATE_WORKING", "timestamp": now()}}}
    text = " ".join(part["text"] for part in message["parts"])
    for number, piece in enumerate(answer(text)):
        artifact = {"artifactId": "answer", "parts": [{"text": piece}]}
        yield {"artifactUpdate": {**ids, "artifact": artifact, "append": number > 0}}


def now():
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def find(id):
    """The latest attempt of a task, which is begun here if the one before was interrupted.

    :raises RunUnknown: there is no such task.
    """
    for attempt in range(ATTEMPTS, 1, -1):
        with contextlib.suppress(RunUnknown):
            run = attempt_of(id, attempt)
            break
    else:
        attempt, run = 1, attempt_of(id, 1)
    if run.state != RunState.INTERRUPTED or attempt == ATTEMPTS:
        return run
    first = read(attempt_of(id, 1))
    return begin(first["history"][0], first["contextId"], id, attempt + 1)


@get_broker().on_interrupted
def go_on(record):
    """Begin the next attempt also of a task that nobody follows."""
    with contextlib.suppress(RunUnknown):
        find(record.name.split(":")[1])


def read(run):
    """The task of a run, of the events so far. A run that has ended is read to its final event.

    :raises BrokerUnavailable: the log can't be read now.
    """
    task, state = None, run.state
    is_whole = not state.ended
    try:
        with run.follow() as events:
            # The first event may be on its way.
            while event := events.get(10 if task is None or not is_whole else 0):
                result = event.json()
                if event.type == "end":
                    is_whole, state = True, RunState(result["state"])
                    break
                task = result.get("task", task)
                if "artifactUpdate" in result:
                    artifact = result["artifactUpdate"]["artifact"]
                    if "artifacts" in task:
                        task["artifacts"][0]["parts"][0]["text"] += artifact["parts"][0]["text"]
                    else:
                        task["artifacts"] = [artifact]
    except StreamClosed:  # the worker stops, for example
        is_whole = False
    if not is_whole:
        raise BrokerUnavailable("a task could not be read to its end")
    if task is None:
        raise RunUnknown("the task has no events")
    task["status"] = status_of(run, state)
    return task


def status_of(run, state):
    """The status of a task whose run is in a state."""
    if state == RunState.INTERRUPTED:
        if not run.name.endswith(f":{ATTEMPTS}"):
            return {"state": "TASK_STATE_SUBMITTED"}  # another worker begins the next attempt
        state = RunState.FAILED
    return {"state": STATES[state]}


def follow(request, run, task, id):
    """Answer the request of an id with the events of a run, each in a response of JSON-RPC."""
    endings = {
        state.value: {
            "statusUpdate": {"taskId": task["id"], "contextId": task["contextId"], "status": status_of(run, state)}
        }
        for state in RunState
        if state.ended
    }
    broken = failure(id, {"code": Code.INTERNAL_ERROR, "message": "The stream ended early. Subscribe to the task."})
    return follow_run(
        request,
        run.name,
        subject=SUBJECT,
        envelope=jsonrpc_result(id, endings),
        error_event=Event.from_json(broken, type="error"),
    )
