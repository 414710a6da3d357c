"""The history checker: who sent what, what arrived where, who was told of which end, and what must hold then.

A client and the app's side of it share a name; each message says whose it is, its direction and its number."""

import threading
import time
from collections import defaultdict

TO_APP, TO_CLIENT = "to_app", "to_client"
CLIENT, APP = "client", "app"
DIRECTIONS = (TO_APP, TO_CLIENT)
_PAD = "."


class History:
    """May be written from several threads; it is read when the run is over and the network has healed."""

    def __init__(self):
        self._lock = threading.Lock()
        self._sent = defaultdict(int)
        self._arrived = defaultdict(list)
        self._ids = {}
        self._ends = {}

    def opened(self, name, session):
        """The app has got a connection, under this session id."""
        with self._lock:
            self._ids[name] = session

    def send(self, name, direction, padding=0):
        """The next message of this name, longer by `padding`; from here on it counts as sent."""
        with self._lock:
            self._sent[name, direction] += 1
            return f"{name} {direction} {self._sent[name, direction]}{_PAD * padding}"

    def arrived(self, name, direction, text):
        """This came out at the end that belongs to the name."""
        with self._lock:
            self._arrived[name, direction].append(text.rstrip(_PAD))

    def ended(self, name, side, code):
        """One side was told that its connection is over, with this close code (1006: without a Close)."""
        with self._lock:
            self._ends.setdefault((name, side), (code, time.monotonic()))

    def session(self, name):
        """The id under which the app knows this name, or None."""
        with self._lock:
            return self._ids.get(name)

    def end(self, name, side):
        """The close code and the monotonic time, or None while that side is open."""
        with self._lock:
            return self._ends.get((name, side))

    def names(self):
        """All that ever reached the app."""
        with self._lock:
            return sorted(self._ids)

    def open_names(self, side):
        """Those that were not told of an end on this side."""
        return [name for name in self.names() if self.end(name, side) is None]

    def count(self, direction):
        """How many messages arrived in this direction, over all names."""
        with self._lock:
            return sum(len(texts) for (_, way), texts in self._arrived.items() if way == direction)

    def misdelivered(self):
        """Nothing that was never sent or is another's; each message once, in order, without a hole."""
        with self._lock:
            found = []
            for (name, direction), texts in self._arrived.items():
                found += _misdelivered(name, direction, texts, self._sent[name, direction])
            return found

    def lost(self):
        """What did not arrive although neither side was told of an end."""
        living = set(self.open_names(CLIENT)) & set(self.open_names(APP))
        with self._lock:
            return [
                f"{name} {direction}: {len(self._arrived[name, direction])} of {self._sent[name, direction]} arrived"
                for name in sorted(living)
                for direction in DIRECTIONS
                if len(self._arrived[name, direction]) != self._sent[name, direction]
            ]

    def registry_differs(self, listed):
        """`listed` are the session ids of the registry: they must be those of which both sides are open."""
        found = []
        by_id = {self.session(name): name for name in self.names()}
        for side in (CLIENT, APP):
            really = {self.session(name) for name in self.open_names(side)}
            found += [f"{by_id[one]}: not listed, but its {side} is open" for one in sorted(really - set(listed))]
            found += [
                f"{by_id.get(one, one)}: listed, but its {side} is not open" for one in sorted(set(listed) - really)
            ]
        return found

    def check(self, listed):
        """All of it, T_dead after the network has healed."""
        found = self.misdelivered() + self.lost() + self.registry_differs(listed)
        assert not found, "\n".join(["the history is wrong:", *found[:20]])

    def check_nobody_ended(self):
        """The run without faults, and each run whose faults must evict nobody."""
        with self._lock:
            assert not self._ends, f"ended: {self._ends}"


def _misdelivered(name, direction, texts, sent):
    """The first break says what went wrong; what follows it would only repeat that."""
    for expected, text in enumerate(texts, 1):
        if text == f"{name} {direction} {expected}":
            if expected > sent:
                return [f"{name} {direction}: {text!r} was never sent"]
            continue
        whose, _, number = text.rpartition(" ")
        if whose != f"{name} {direction}" or not number.isdigit():
            return [f"{name} {direction}: got {text!r}, which is another's or nobody's"]
        kind = "again" if int(number) < expected else "too early: a hole or a swap"
        return [f"{name} {direction}: number {number} {kind}, {expected} was due"]
    return []
