"""The streams that the benchmarks decode, with the events that they hold.

Both are made from the same parts by plain formatting, so that no encoder or decoder is its own judge. Seeded: every
run and every machine gets the same bytes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

CHUNK_SIZE = 65536

_TEXT = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one
you were all her she there would their we him been has when who will no more if out so up said what its about into
than them can only other time new some could these two may first then do any like my now over such our man even
most made after also did many off before must well back through years much where your way naïve façade 日本語 →
"""
_WORDS = _TEXT.split()


@dataclass(frozen=True)
class Input:
    """A stream: its blocks as bytes, one an event, and each event as (data, type, last event ID)."""

    name: str
    blocks: list[bytes]
    events: list[tuple[str, str, str]]

    @property
    def stream(self) -> bytes:
        return b"".join(self.blocks)

    def cut(self, size: int = CHUNK_SIZE) -> list[bytes]:
        """The stream in chunks of ``size`` bytes, wherever that cuts."""
        stream = self.stream
        return [stream[at : at + size] for at in range(0, len(stream), size)]


def chat(count: int, seed: int = 1) -> Input:
    """Answers of a language model, token by token, as OpenAI's chat completions stream them."""
    rng = random.Random(seed)
    blocks, events = [], []
    answer = f"chatcmpl-{rng.getrandbits(32):032x}"
    for number in range(count):
        if number == count - 1:
            data = "[DONE]"
        else:
            delta = {"content": " " + rng.choice(_WORDS)}
            data = json.dumps(
                {
                    "id": answer,
                    "object": "chat.completion.chunk",
                    "created": 1_750_000_000 + number // 50,
                    "model": "gpt-4o-mini",
                    "system_fingerprint": "fp_0123456789",
                    "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}],
                },
                ensure_ascii=False,
                separators=(",", ":"),
            )
        blocks.append(f"data: {data}\n\n".encode())
        events.append((data, "message", ""))
    return Input("chat-completion chunks", blocks, events)


def small(count: int, seed: int = 2, end: str = "\n") -> Input:
    """Id, event and data, one short line each."""
    rng = random.Random(seed)
    blocks, events = [], []
    for number in range(count):
        kind = rng.choice(("tick", "update", "price", "progress"))
        data = json.dumps({"n": number, "value": rng.randrange(100_000)})
        blocks.append(f"id: {number}{end}event: {kind}{end}data: {data}{end}{end}".encode())
        events.append((data, kind, str(number)))
    return Input("small, id + event + data" + ("" if end == "\n" else ", CRLF"), blocks, events)


def crlf(count: int, seed: int = 2) -> Input:
    """The small events with the line ends that some servers write."""
    return small(count, seed, "\r\n")


def ten_lines(count: int, seed: int = 3) -> Input:
    """Events of ten lines of text."""
    rng = random.Random(seed)
    blocks, events = [], []
    for _ in range(count):
        lines = [" ".join(rng.choices(_WORDS, k=rng.randint(5, 15))) for _ in range(10)]
        blocks.append(("".join(f"data: {line}\n" for line in lines) + "\n").encode())
        events.append(("\n".join(lines), "message", ""))
    return Input("ten data lines", blocks, events)


def large(count: int, seed: int = 4, size: int = 65536) -> Input:
    """Events of one line of 64 kB."""
    rng = random.Random(seed)
    blocks, events = [], []
    for _ in range(count):
        data = f"{rng.getrandbits(size * 4):0{size}x}"
        blocks.append(f"data: {data}\n\n".encode())
        events.append((data, "message", ""))
    return Input(f"{size // 1024} kB events", blocks, events)


def hundred_bytes(count: int, seed: int = 5) -> Input:
    """Events of exactly 100 bytes, blank line included: with one a chunk, what live tokens and ticks look like."""
    rng = random.Random(seed)
    blocks, events = [], []
    for number in range(count):
        data = f'{{"n":{number:09d},"text":"{rng.getrandbits(268):067x}"}}'
        blocks.append(f"data: {data}\n\n".encode())
        events.append((data, "message", ""))
    return Input("100-byte events", blocks, events)


#: How each input of the codec is made, with the number of events that makes about half a megabyte (large: 2 MB).
CODEC: dict[str, tuple[Callable[[int], Input], int]] = {
    "chat": (chat, 2_000),
    "small": (small, 10_000),
    "crlf": (crlf, 10_000),
    "ten-lines": (ten_lines, 1_000),
    "large": (large, 32),
}
