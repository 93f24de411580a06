"""What this server offers: tools, and notes as resources. Nothing here knows of HTTP, JSON-RPC or events.

A tool is a function with annotated parameters and a docstring, which returns text. A slow tool is a generator function:
it yields its progress, as tuples (steps done, steps in all), and at last the text.
"""

import inspect
import threading
import time

#: For each annotation the type in JSON Schema, and what is accepted.
KINDS = {str: ("string", str), int: ("integer", int), float: ("number", (int, float))}


class ToolError(Exception):
    """A call that failed; the model gets the message."""


class Tool:
    def __init__(self, function):
        self._function = function
        self._parameters = inspect.signature(function).parameters

    def describe(self):
        """The tool as MCP lists it."""
        kinds = {name: {"type": KINDS[each.annotation][0]} for name, each in self._parameters.items()}
        required = [name for name, each in self._parameters.items() if each.default is each.empty]
        arguments = {"type": "object", "properties": kinds, "required": required}
        return {"name": self._function.__name__, "description": self._function.__doc__, "inputSchema": arguments}

    def call(self, arguments):
        """The tool's text, or the generator of a slow tool."""
        try:
            bound = inspect.signature(self._function).bind(**arguments)
        except TypeError as error:
            raise ToolError(f"Wrong arguments: {error}.") from None
        for name, value in bound.arguments.items():
            kind, accepted = KINDS[self._parameters[name].annotation]
            if not isinstance(value, accepted) or isinstance(value, bool):
                raise ToolError(f"The argument {name} is of type {kind}.")
        return self._function(**arguments)


class Notes:
    """Texts by name, in memory. ``changed`` is called after each write, with the URI and whether the note is new."""

    def __init__(self, changed):
        self._changed = changed
        self._lock = threading.Lock()
        self._texts = {"welcome": "Call write_note, and all listeners are notified."}

    def names(self):
        with self._lock:
            return list(self._texts)

    def read(self, uri):
        """The note's text, ``None`` if there is no such note."""
        with self._lock:
            return self._texts.get(uri.removeprefix("note:")) if uri.startswith("note:") else None

    def write(self, name, text):
        if not (0 < len(name) <= 60 and name.isascii() and name.isalnum()):
            raise ToolError("A name has at most 60 letters and digits.")
        with self._lock:
            new = name not in self._texts
            if new and len(self._texts) >= 1000:
                raise ToolError("There are too many notes.")
            self._texts[name] = text
        self._changed(f"note:{name}", new)


def make_tools(notes):
    """The tools by their names."""

    def add(a: float, b: float):
        """Add two numbers."""
        return str(a + b)

    def count(to: int, pause: float = 0.1):
        """Count slowly, with a pause of so many seconds before each number."""
        if not 0 < to <= 10_000 or not 0 <= pause <= 10:
            raise ToolError("I count to 10,000 at most, with pauses of 10 seconds at most.")
        for done in range(1, to + 1):
            time.sleep(pause)
            yield done, to
        yield f"Counted to {to}."

    def write_note(name: str, text: str):
        """Write a note, or replace its text."""
        notes.write(name, text)
        return f"Written: note:{name}"

    return {function.__name__: Tool(function) for function in (add, count, write_note)}
