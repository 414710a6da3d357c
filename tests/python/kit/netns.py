"""Network namespaces joined by veth pairs, with a switch on each path that drops packets (root only).

Nothing is touched outside the namespaces, and their names carry the process id."""

import ctypes
import itertools
import os
import subprocess
import threading

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
    """A veth pair between two places; `here` is where the packets get dropped."""

    def __init__(self, here, there, subnet):
        self._here, self._there = here, there
        number = next(_numbers)
        self._device = f"pg{number}"
        self.here_address, self.there_address = f"10.77.{subnet}.1", f"10.77.{subnet}.2"
        _sh("ip", "link", "add", self._device, "netns", here.name, "type", "veth",
            "peer", "name", f"pg{number}p", "netns", there.name)
        for place, device, address in (
            (here, self._device, self.here_address), (there, f"pg{number}p", self.there_address)
        ):
            _sh("ip", "-n", place.name, "address", "add", f"{address}/24", "dev", device)
            _sh("ip", "-n", place.name, "link", "set", device, "up")

    def drop(self, incoming=True, outgoing=True):
        """From now on packets vanish without a word, as seen from `here`: no FIN, no RST, no ICMP."""
        rules = ["table inet blackhole {"]
        if incoming:
            rules.append(f'chain in {{ type filter hook input priority 0; iifname "{self._device}" drop; }}')
        if outgoing:
            rules.append(f'chain out {{ type filter hook output priority 0; oifname "{self._device}" drop; }}')
        _sh("ip", "netns", "exec", self._here.name, "nft", "-f", "-", text="\n".join([*rules, "}\n"]))

    def heal(self):
        _sh("ip", "netns", "exec", self._here.name, "nft", "delete", "table", "inet", "blackhole")

    def lose(self):
        """From now on what is sent from `here` is lost on its way: unlike after `drop`, our kernel believes that it
        went out."""
        rule = f'chain in {{ type filter hook input priority 0; iifname "{self._device}p" drop; }};'
        _sh("ip", "netns", "exec", self._there.name, "nft", "-f", "-", text=f"table inet blackhole {{ {rule} }}\n")

    def find(self):
        """Ends `lose`."""
        _sh("ip", "netns", "exec", self._there.name, "nft", "delete", "table", "inet", "blackhole")
