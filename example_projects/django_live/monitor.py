"""The machine's busiest processes, as plain dictionaries."""

import os

import psutil


class Top:
    """Samples all processes; a rate is since the previous sample. One for each stream, as a sample resets the rates."""

    def __init__(self):
        self._processes = {}
        self._cpu = psutil.cpu_times()
        self.busiest(0)

    def sample(self, limit):
        """Load average, CPU and memory of the machine, and its ``limit`` busiest processes."""
        memory = psutil.virtual_memory()
        rows = self.busiest(limit)
        return {
            "load": [round(value, 2) for value in psutil.getloadavg()],
            "cpu": self.cpu(),
            "cores": psutil.cpu_count(),
            "memory": {"total": memory.total, "used": memory.total - memory.available, "percent": memory.percent},
            "processes": len(self._processes),
            "busiest": rows,
        }

    def cpu(self):
        """The share of its time that the machine spent in user code, in the kernel and on the rest of its work."""
        before, self._cpu = self._cpu, psutil.cpu_times()
        spent = {field: getattr(self._cpu, field) - getattr(before, field) for field in self._cpu._fields}
        # Guests are counted in user time already.
        total = sum(seconds for field, seconds in spent.items() if field not in ("guest", "guest_nice"))
        if total <= 0:
            return {"user": 0.0, "system": 0.0, "other": 0.0}
        idle = spent["idle"] + spent.get("iowait", 0.0)
        share = {"user": spent["user"] + spent.get("nice", 0.0), "system": spent["system"]}
        share["other"] = total - idle - sum(share.values())
        return {name: round(max(0.0, 100 * seconds / total), 1) for name, seconds in share.items()}

    def busiest(self, limit):
        """The processes with the highest CPU load, and among idle ones those with the most memory."""
        # A process object keeps the values of its previous sample. Objects are equal if pid and start time are.
        before = self._processes
        self._processes = {process: before.get(process, process) for process in psutil.process_iter()}
        rows = [row for process in self._processes.values() if (row := _row(process))]
        return sorted(rows, key=lambda row: (row["cpu"], row["memory"]), reverse=True)[:limit]


def _row(process):
    try:
        with process.oneshot():
            return {
                "pid": process.pid,
                "name": process.name(),
                "cpu": process.cpu_percent(),
                "memory": process.memory_info().rss,
                "threads": process.num_threads(),
                "self": process.pid == os.getpid(),
            }
    except psutil.Error:
        return None  # ended meanwhile, or not accessible
