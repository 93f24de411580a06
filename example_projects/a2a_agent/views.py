"""The protocol: A2A 1.0 in its JSON-RPC binding."""

import contextlib
import logging
import re
import uuid

import tasks
from django.core.exceptions import RequestDataTooBig
from django.http import JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST
from rpc import Code, RPCError, failure, is_short, parse, response

from ssesync import BrokerError, RunUnknown, get_last_event_id
from ssesync_django import get_broker

logger = logging.getLogger(__name__)
#: Seconds that SendMessage waits for a task's end. It takes a thread meanwhile, which a stream does not.
WAIT = 60
REFUSED = {
    "ListTasks": Code.UNSUPPORTED_OPERATION,
    "GetExtendedAgentCard": Code.EXTENDED_AGENT_CARD_NOT_CONFIGURED,
    "CreateTaskPushNotificationConfig": Code.PUSH_NOTIFICATION_NOT_SUPPORTED,
    "GetTaskPushNotificationConfig": Code.PUSH_NOTIFICATION_NOT_SUPPORTED,
    "ListTaskPushNotificationConfigs": Code.PUSH_NOTIFICATION_NOT_SUPPORTED,
    "DeleteTaskPushNotificationConfig": Code.PUSH_NOTIFICATION_NOT_SUPPORTED,
}


@require_GET
def card(request):
    skill = {
        "id": "answer",
        "name": "Answer",
        "description": "Counts, or repeats what it is told.",
        "tags": ["demo"],
        "examples": ["Count to 20."],
    }
    url = request.build_absolute_uri("/a2a")
    return JsonResponse(
        {
            "name": "ssesync's example agent",
            "description": "Its tasks go on without clients, and after their worker was killed.",
            "version": "1.0",
            "supportedInterfaces": [{"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
            "capabilities": {"streaming": True, "pushNotifications": False},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [skill],
        }
    )


@csrf_exempt  # a page of another site can't send this type of content
@require_POST
def post(request):
    id = None
    try:
        if request.content_type != "application/json":
            raise RPCError(Code.INVALID_REQUEST, "Content-Type must be application/json.", status=415)
        id, method, params = parse(body_of(request))
        return answer(request, id, method, params)
    except RPCError as error:
        return JsonResponse(failure(id, error.fields), status=error.status)
    except BrokerError as error:
        logger.error("a request failed: %s", error)
        status = get_broker().status_of(error)
        return JsonResponse(failure(id, {"code": Code.INTERNAL_ERROR, "message": "Try again later."}), status=status)


def body_of(request):
    try:
        return request.body
    except RequestDataTooBig:
        raise RPCError(Code.INVALID_REQUEST, "The request is too large.", status=413) from None


def answer(request, id, method, params):
    known = method in METHODS or method in STREAMS
    if not known and method not in REFUSED:
        raise RPCError(Code.METHOD_NOT_FOUND, "Method not found.")
    version = request.headers.get("A2A-Version") or request.GET.get("A2A-Version") or "0.3"
    if version.split(".")[0] != "1":
        raise RPCError(Code.VERSION_NOT_SUPPORTED, "This agent speaks version 1.0 of A2A.")
    if not known:
        raise RPCError(REFUSED[method], "This agent does not offer that.")
    type = "text/event-stream" if method in STREAMS else "application/json"
    if not request.accepts(type):
        raise RPCError(Code.INVALID_REQUEST, f"Accept must allow {type}.", status=406)
    if method in STREAMS:
        return STREAMS[method](request, id, params)
    return JsonResponse(response(id, METHODS[method](params)))


def begin(params):
    """Begin the task of a message."""
    message = params.get("message")
    if not isinstance(message, dict) or not is_short(message.get("messageId")):
        raise RPCError(Code.INVALID_PARAMS, "message must be an object with a messageId of at most 100 characters.")
    parts, context = message.get("parts"), message.get("contextId") or str(uuid.uuid4())
    if not isinstance(parts, list) or not parts or not is_short(context):
        raise RPCError(Code.INVALID_PARAMS, "A message has parts, and a contextId of at most 100 characters.")
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        raise RPCError(Code.CONTENT_TYPE_NOT_SUPPORTED, "This agent reads text.")
    if message.get("taskId"):
        existing({"id": message["taskId"]})
        raise RPCError(Code.UNSUPPORTED_OPERATION, "A task of this agent has one message.")
    return tasks.begin(message, context)


def existing(params):
    """The run of a task, and the task."""
    id = params.get("id")
    if isinstance(id, str) and re.fullmatch("[0-9a-f-]{36}", id):
        with contextlib.suppress(RunUnknown):
            run = tasks.find(id)
            return run, tasks.read(run)
    raise RPCError(Code.TASK_NOT_FOUND, "There is no such task.")


def send(params):
    run = begin(params)
    configuration = params.get("configuration")
    if not isinstance(configuration, dict) or configuration.get("returnImmediately") is not True:
        run.wait(WAIT)
    return {"task": tasks.read(run)}


def get(params):
    _, task = existing(params)
    if params.get("historyLength") == 0:
        del task["history"]
    return task


def cancel(params):
    run, _ = existing(params)
    if not run.stop():
        raise RPCError(Code.TASK_NOT_CANCELABLE, "The task has ended.")
    return tasks.read(run.refresh())


def send_and_follow(request, id, params):
    run = begin(params)
    request.META.pop("HTTP_LAST_EVENT_ID", None)  # of another task
    return tasks.follow(request, run, tasks.read(run), id)


def subscribe(request, id, params):
    run, task = existing(params)
    # A client that sends the id of one of the run's events gets what comes after it; any other one all of the task.
    if get_broker().channel_of(get_last_event_id(request) or "") != run.name:
        request.META.pop("HTTP_LAST_EVENT_ID", None)
        if run.state.ended:
            raise RPCError(Code.UNSUPPORTED_OPERATION, "The task has ended.")
    return tasks.follow(request, run, task, id)


METHODS = {"SendMessage": send, "GetTask": get, "CancelTask": cancel}
STREAMS = {"SendStreamingMessage": send_and_follow, "SubscribeToTask": subscribe}
