"""Network namespaces joined by veth pairs, with a switch on each path that drops packets (root only).

Nothing is touched outside the namespaces, and their names carry the process id."""

import ctypes
import itertools
import os
import subprocess
import threading
from pathlib import Path as File

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def _sh(*command, text=None):
    done = subprocess.run(command, capture_output=True, text=True, input=text, timeout=10)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


class Place:
    """A namespace: a machine of its own as far as the network is concerned."""

    def __init__(self, name):
        self.name = f"pulsegate-{os.getpid()}-{next(_numbers)}-{name}"
        _sh("ip", "netns", "add", self.name)
        try:
            _sh("ip", "-n", self.name, "link", "set", "lo", "up")
        except AssertionError:
            self.close()
            raise

    def command(self, command):
        """The same command, run in here."""
        return ["ip", "netns", "exec", self.name, *command]

    def inside(self, work):
        """Runs `work` in here; sockets that it makes belong to this place for good."""
        result = []

        def enter():
            try:
                with open(f"/run/netns/{self.name}") as handle:
                    if _libc.setns(handle.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"setns to {self.name}")
                result.append((True, work()))
            except BaseException as failure:
                result.append((False, failure))

        # A namespace belongs to a thread: this one ends with the work, so nobody else moves.
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        fine, value = result[0]
        if not fine:
            raise value
        return value

    def close(self):
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, timeout=10)


class Path:
    """A veth pair between two places, with faults on it. Directions are as seen from `here`."""

    def __init__(self, here, there, subnet):
        number = next(_numbers)
        self._table = f"faults{number}"
        self._ends = ((here, f"pg{number}"), (there, f"pg{number}p"))
        self.here_address, self.there_address = f"10.77.{subnet}.1", f"10.77.{subnet}.2"
        _sh("ip", "link", "add", f"pg{number}", "netns", here.name, "type", "veth",
            "peer", "name", f"pg{number}p", "netns", there.name)
        for (place, device), address in zip(self._ends, (self.here_address, self.there_address)):
            _sh("ip", "-n", place.name, "address", "add", f"{address}/24", "dev", device)
            _sh("ip", "-n", place.name, "link", "set", device, "up")

    def drop(self, incoming=True, outgoing=True):
        """From now on packets vanish without a word: no FIN, no RST, no ICMP."""
        self._filter("drop", incoming, outgoing)

    def lose(self, percent):
        """From now on this share of the packets is lost at random, each way."""
        self._filter(f"numgen random mod 100 < {percent} drop")

    def lose_big_packets(self):
        """A path MTU black hole toward `there`: full packets vanish, small ones pass."""
        self._filter("meta length > 600 drop", incoming=False)

    def reset(self):
        """From now on each TCP packet is answered with a reset, at both ends."""
        self._filter("tcp flags & rst != rst reject with tcp reset")

    def forget(self, idle_s):
        """A middlebox: it forgets flows that were idle for `idle_s`, and drops what belongs to no flow it knows.
        It knows those that open from now on."""
        self._filter("ct state invalid drop")
        for place, _ in self._ends:
            for key, value in (("timeout_established", idle_s), ("loose", 0)):
                setting = File(f"/proc/sys/net/netfilter/nf_conntrack_tcp_{key}")
                place.inside(lambda: setting.write_text(str(value)))

    def cut_cable(self):
        """The far end's device goes down; this end sees its carrier go."""
        self._far_device("down")

    def plug_in(self):
        """The far end's device comes up again."""
        self._far_device("up")

    def heal(self):
        """Ends what the filters do."""
        for place, _ in self._ends:
            _nft(place, f"table inet {self._table}; delete table inet {self._table}")

    def _far_device(self, state):
        _, (there, device) = self._ends
        _sh("ip", "-n", there.name, "link", "set", device, state)

    # Each direction is filtered where it arrives: TCP is told when its own output hook drops a packet, and then
    # does not count it as sent, which no real network does.
    def _filter(self, verdict, incoming=True, outgoing=True):
        for wanted, (place, device) in zip((incoming, outgoing), self._ends):
            if wanted:
                _nft(place, f"""table inet {self._table} {{
                    chain in {{ type filter hook input priority 0; iifname "{device}" {verdict}; }}
                }}""")


def _nft(place, rules):
    _sh("ip", "netns", "exec", place.name, "nft", "-f", "-", text=rules + "\n")
