"""The agent: a function of a text that yields its answer piece by piece. Nothing here knows of HTTP, A2A or events.

Without a model it counts, or repeats what it is told. Environment: PAUSE, seconds before each word (0.1); or
OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL, of a server with OpenAI's chat completions.
"""

import os
import re
import time

import requests

from ssesync import Reader

PAUSE = float(os.environ.get("PAUSE", "0.1"))
BASE_URL = os.environ.get("OPENAI_BASE_URL")


def answer(text):
    return ask_model(text) if BASE_URL else repeat(text)


def repeat(text):
    count = re.search(r"count to (\d{1,5})", text, re.IGNORECASE)
    words = map(str, range(1, int(count[1]) + 1)) if count else f"You said: {text}".split()
    for word in words:
        time.sleep(PAUSE)
        yield f"{word} "


def ask_model(text):
    body = {"model": os.environ.get("OPENAI_MODEL", "gpt-4o-mini"), "stream": True}
    body["messages"] = [{"role": "user", "content": text}]
    headers = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}", "Accept": "text/event-stream"}
    url = f"{BASE_URL.rstrip('/')}/chat/completions"
    with requests.post(url, json=body, headers=headers, stream=True, timeout=(5, 120)) as response:
        response.raise_for_status()
        for event in Reader(response):
            if event.data == "[DONE]":
                return
            for choice in event.json().get("choices", []):
                if choice["delta"].get("content"):
                    yield choice["delta"]["content"]
    raise ConnectionError("The model broke off.")
