"""The official client: listens for changes of notes, and calls each tool. Give it "legacy" for the sessions of 2025.

pip install "mcp>=2.3"
python client.py [legacy] [http://127.0.0.1:8000/mcp]
"""

import sys
import time
from contextlib import AsyncExitStack

import anyio
from mcp import Client


async def main(mode="auto", url="http://127.0.0.1:8000/mcp"):
    async def handle(message):
        if mode == "legacy" and message.method != "notifications/progress":
            print(f"  received {message.method}")

    async def progress(done, total, message):
        print(f"  {done:.0f} of {total:.0f}")

    async def print_events(subscription):
        async for event in subscription:
            print(f"  received {event}")

    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(url, mode=mode, message_handler=handle))
        print(f"connected, version {client.session.protocol_version}")
        if mode == "auto":
            listening = client.listen(resources_list_changed=True, resource_subscriptions=["note:welcome"])
            tasks = await stack.enter_async_context(anyio.create_task_group())
            tasks.start_soon(print_events, await stack.enter_async_context(listening))
        for name, arguments in (
            ("add", {"a": 1, "b": 2}),
            ("count", {"to": 5}),
            ("write_note", {"name": "welcome", "text": "Hello!"}),
            ("write_note", {"name": f"note{time.time_ns()}", "text": "Hello again!"}),
        ):
            print(name, arguments)
            result = await client.call_tool(name, arguments, progress_callback=progress)
            print(f"  {result.content[0].text}")
        await anyio.sleep(0.3)  # for what is on its way


if __name__ == "__main__":
    given = sys.argv[1:]
    legacy = given[:1] == ["legacy"]
    anyio.run(main, "legacy" if legacy else "auto", *given[legacy:])
