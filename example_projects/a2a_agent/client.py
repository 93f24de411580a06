"""The official client: sends a message, and follows the task until it has ended, also after a lost connection.

pip install "a2a-sdk>=1.3"
python client.py ["Count to 50."] [http://127.0.0.1:8000]
"""

import asyncio
import sys
import uuid

import httpx
from a2a.client import ClientConfig, create_client
from a2a.types import Message, Part, Role, SendMessageRequest, SubscribeToTaskRequest, TaskState
from a2a.utils.errors import A2AError, TaskNotFoundError, UnsupportedOperationError

ENDED = {"COMPLETED", "FAILED", "CANCELED", "REJECTED"}


async def main(text="Count to 20.", url="http://127.0.0.1:8000"):
    message = Message(message_id=str(uuid.uuid4()), role=Role.ROLE_USER, parts=[Part(text=text)])
    http = httpx.AsyncClient(timeout=60)
    async with http, await create_client(url, ClientConfig(httpx_client=http)) as client:
        task, state = "", ""
        stream = client.send_message(SendMessageRequest(message=message))
        while True:
            try:
                async for event in stream:
                    kind = event.WhichOneof("payload")
                    if kind == "artifact_update":
                        print(event.artifact_update.artifact.parts[0].text, end="", flush=True)
                        continue
                    task = task or event.task.id
                    state = TaskState.Name(getattr(event, kind).status.state).removeprefix("TASK_STATE_")
                    print(f"\n{kind} {state}")
            except A2AError as error:
                print(f"\n{error!r}")
                if isinstance(error, (TaskNotFoundError, UnsupportedOperationError)):  # it has ended meanwhile
                    break
                await asyncio.sleep(1)  # the connection was lost
            if state in ENDED or not task:
                break
            stream = client.subscribe(SubscribeToTaskRequest(id=task))  # begins with all of the task


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
