"""What the operating system does to a process: stops it, starves it, lies to it about the time; and what it uses."""

import os
import re
import resource
import signal
import threading
from contextlib import contextmanager
from pathlib import Path

from .wait import eventually

_TICKS = os.sysconf("SC_CLK_TCK")
_FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
_CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cpu"))


def cpu_seconds(pid):
    """User and system time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_bytes(pid):
    """Resident memory now."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1)) * 1024


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def stop(process):
    """SIGSTOP, and not back before the kernel has done it."""
    process.signal(signal.SIGSTOP)
    eventually(lambda: _state(process.pid) == "T", f"{process.name} is stopped")


def wake(process):
    process.signal(signal.SIGCONT)


def _state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def files_capped(pid, spare):
    """No more than `spare` new descriptors, as `prlimit --pid --nofile` does it to a running process."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # The limit is one above the highest number allowed, and the kernel hands out the lowest free one.
    taken = {int(number) for number in os.listdir(f"/proc/{pid}/fd")}
    free = [number for number in range(len(taken) + spare + 1) if number not in taken]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[spare], before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


class FakeClock:
    """The wall clock of one process under libfaketime; its monotonic clock stays true. Used as a `place`."""

    def __init__(self, directory):
        assert _FAKETIME, "libfaketime is missing (Debian package libfaketime)"
        self._file = Path(directory) / "clock"
        self.jump(0)

    def jump(self, seconds):
        """From now on the process reads the true time and this many seconds."""
        # Replaced in one step: the process reads this file at every look at the clock.
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.rename(self._file)

    def command(self, command):
        return ["env", f"LD_PRELOAD={_FAKETIME[-1]}", f"FAKETIME_TIMESTAMP_FILE={self._file}", "FAKETIME_NO_CACHE=1",
                "FAKETIME_DONT_FAKE_MONOTONIC=1", *command]

    def inside(self, work):
        return work()


@contextmanager
def starved(pid, share):
    """Leaves a process `share` of one core; yields how: a cgroup's quota, or else stop and go."""
    group = next((made for root in _CGROUPS if (made := _cgroup(root, share))), None)
    if group is None:
        with _duty_cycle(pid, share):
            yield "SIGSTOP and SIGCONT in turns"
        return
    try:
        (group / "cgroup.procs").write_text(str(pid))
        yield f"cgroup {group}"
    finally:
        (group.parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()


_PERIOD_US = 100_000


def _cgroup(root, share):
    """A group with that quota, under version 1 or 2; None where this machine has none to give."""
    group = root / f"pulsegate-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        return None
    if not (group / "cgroup.procs").exists():
        # A plain directory: what is mounted here is only the parent of version 1's mounts.
        group.rmdir()
        return None
    quota = int(_PERIOD_US * share)
    try:
        if (group / "cpu.cfs_quota_us").exists():
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            with open(group / "cpu.max", "r+") as limit:
                limit.write(f"{quota} {_PERIOD_US}")
    except OSError:
        group.rmdir()
        return None
    return group


@contextmanager
def _duty_cycle(pid, share):
    done = threading.Event()

    def work():
        while not done.is_set():
            os.kill(pid, signal.SIGCONT)
            done.wait(_PERIOD_US * share / 1e6)
            os.kill(pid, signal.SIGSTOP)
            done.wait(_PERIOD_US * (1 - share) / 1e6)
        os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
