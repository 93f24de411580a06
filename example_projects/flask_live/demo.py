"""Starts this example under gunicorn and follows its stream in the terminal, until Ctrl-C.

Environment: PORT (by default a free one) and EVENTS, the number of events after which it ends by itself.
"""

import sys
import time
from pathlib import Path

import requests

from ssesync import Reader, add_accept_mime

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from terminal import faint, paint, run  # noqa: E402


def follow(url, events, server):
    """Print each event as it arrives. Returns their number, after ``events`` of them or at the stream's end."""
    count = 0
    with requests.Session() as session:
        session.trust_env = False  # no proxy for 127.0.0.1
        add_accept_mime(session.headers)
        with session.get(f"{url}stats", stream=True, timeout=(10, 30)) as response:
            for event in Reader(response):
                count += 1
                print(line(event), flush=True)
                if count == events:
                    break
    return count


def line(event):
    values = event.json()
    if event.type == "host":
        size = values["memory"] / 2**30
        text = (
            f"{values['name']}, {values['system']}, Python {values['python']}, {values['cores']} cores, {size:.1f} GB"
        )
        return f"  {faint('host   ')}{text}"
    load = " ".join(f"{value:.2f}" for value in values["load"])
    server = values["server"]
    memory = sum(process["memory"] for process in server) / 2**20
    return (
        f"  {faint('sample ')}{time.strftime('%H:%M:%S', time.localtime(values['time']))}"
        f"  {faint('cpu')} {bar(values['cpu'], 34)}"
        f"  {faint('memory')} {bar(values['memory']['percent'], 36)}"
        f"  {faint('load')} {load}"
        f"  {faint('server')} {len(server)} processes, {memory:.0f} MB"
    )


def bar(percent, colour, width=10):
    eighths = round(percent / 100 * width * 8)
    full = "█" * (eighths // 8) + (" ▏▎▍▌▋▊▉"[eighths % 8] if eighths % 8 else "")
    return f"{paint(full.ljust(width, '·'), colour)} {percent:3.0f} %"


if __name__ == "__main__":
    sys.exit(run(HERE, follow))
