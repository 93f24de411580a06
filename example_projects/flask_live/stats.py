"""The load of the machine and of this server, as plain dictionaries."""

import platform
import time

import psutil


def host():
    """Values that do not change while the server runs."""
    return {
        "name": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cores": psutil.cpu_count(),
        "memory": psutil.virtual_memory().total,
        "booted": psutil.boot_time(),
    }


class Sampler:
    """Takes samples; a rate is since the previous sample. One for each stream, as a sample resets the rates."""

    def __init__(self):
        self._cores = psutil.cpu_times(percpu=True)
        self._processes = {}
        self.server()

    def sample(self):
        """Load average, CPU and memory of the machine, and the processes of this server."""
        memory = psutil.virtual_memory()
        cores = self.cores()
        return {
            "time": time.time(),
            "load": [round(value, 2) for value in psutil.getloadavg()],
            "cpu": round(sum(cores) / len(cores), 1),
            "cores": cores,
            "memory": {"used": memory.total - memory.available, "percent": memory.percent},
            "server": self.server(),
        }

    def cores(self):
        """How busy each core was, in percent."""
        before, self._cores = self._cores, psutil.cpu_times(percpu=True)
        return [_busy(old, new) for old, new in zip(before, self._cores, strict=False)]

    def server(self):
        """This server's processes, the oldest first."""
        found = {process.pid: self._processes.get(process.pid, process) for process in _server_processes()}
        self._processes = found
        rows = [_row(process) for process in sorted(found.values(), key=lambda process: process.create_time())]
        return [row for row in rows if row]


def _row(process):
    try:
        with process.oneshot():
            return {
                "pid": process.pid,
                "cpu": process.cpu_percent(),
                "memory": process.memory_info().rss,
                "threads": process.num_threads(),
                "started": process.create_time(),
            }
    except psutil.Error:
        return None  # ended meanwhile


def _busy(before, after):
    idle = after.idle - before.idle + getattr(after, "iowait", 0) - getattr(before, "iowait", 0)
    # Guests are counted in user time already.
    total = sum(
        getattr(after, field) - getattr(before, field)
        for field in after._fields
        if field not in ("guest", "guest_nice")
    )
    return round(min(100.0, max(0.0, 100 * (1 - idle / total))), 1) if total > 0 else 0.0


def _server_processes():
    """This process; under a server that forks its workers, its siblings and their parent too."""
    me = psutil.Process()
    try:
        parent = me.parent()
        # A forked worker has the command line of its parent.
        if parent is None or parent.cmdline() != me.cmdline():
            return [me]
        return [parent, *parent.children()]
    except psutil.Error:
        return [me]
