"""The model: a fixed text, word by word. Or a server with OpenAI's chat completions API.

Environment: OPENAI_BASE_URL, that server's URL with /v1, OPENAI_API_KEY and OPENAI_MODEL.
"""

import os
import re
import time

import requests

from ssesync import Reader

TEXT = """\
You asked: “{question}”

This answer is a run. One of the two workers produces it in the background and appends each word to a log, and every \
page that shows it, however late it came, reads that log from the start.

So reload this page now. Nothing is lost, nothing is shown twice, and the model is not asked again. Open the same \
address in a second tab: it follows the same answer. Close both, and the answer is finished all the same.

Press Stop in any of the tabs, and the model stops, in whichever process it works; all tabs show it. If that process \
is killed, all tabs show within a second that the answer broke off. A part of it never looks like the whole.
"""


def answer(turns, pause):
    """The answer to the last of the turns, in pieces. An exception breaks it off."""
    if "OPENAI_BASE_URL" in os.environ:
        yield from complete(turns)
        return
    question = turns[-1]["question"]
    for count, word in enumerate(re.findall(r"\S+\s*", TEXT.format(question=question))):
        if "break" in question and count == 20:
            raise RuntimeError("the question asks for an answer that breaks off")
        time.sleep(pause)
        yield word


def complete(turns):
    messages = []
    for turn in turns:
        messages.append({"role": "user", "content": turn["question"]})
        if turn["answer"]:
            messages.append({"role": "assistant", "content": turn["answer"]})
    body = {"model": os.environ.get("OPENAI_MODEL", "gpt-4o-mini"), "messages": messages, "stream": True}
    headers = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}"}
    url = f"{os.environ['OPENAI_BASE_URL'].rstrip('/')}/chat/completions"
    with requests.post(url, json=body, headers=headers, stream=True, timeout=(5, 120)) as response:
        # An answer that ends without this event, or has an error in its place, raises.
        for event in Reader(response, until="[DONE]", until_required=True):
            for choice in event.json()["choices"]:
                if text := choice["delta"].get("content"):
                    yield text
