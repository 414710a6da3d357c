"""Clients of pulsegate.v1 and an app in processes of their own, which number what they send; and the history of it all."""

import json
import sys
from pathlib import Path

from .gateway import peer_binary
from .history import APP, CLIENT, DIRECTIONS
from .v1_history import V1History
from .wait import WAIT_MAX_S, eventually

_APP = Path(__file__).parent / "counting_app.py"
# How long a client waits at most before it dials again. A dial itself takes as long as TCP repeats its SYN: 1, 3, 7 s.
_BACKOFF_MAX_MS = 500


class Numbered:
    """One app, and clients in as many processes as a test wants to stop one by one."""

    def __init__(self, start_process):
        self.history = V1History()
        self._start_process = start_process
        self._process_of = {}
        self._talking = set()
        self.app = None

    def start_app(self, place=None, host="127.0.0.1"):
        """Starts the app; returns its URL."""
        command = [sys.executable, "-B", str(_APP), host]
        self.app = self._start_process("the app", place.command(command) if place else command,
                                       tell=self.history.take_app)
        return f"http://{host}:{self.app.event('listening')['port']}"

    def clients(self, url, names, place=None):
        """Begins clients in a process of their own, which is returned; each has had its WELCOME."""
        command = [peer_binary()]
        clients = self._start_process("clients", place.command(command) if place else command, tell=self.history.take_peer)
        for name in names:
            self._process_of[name] = clients
            order = {"url": f"{url}/?name={name}", "backoff_max_ms": _BACKOFF_MAX_MS}
            self.tell(name, "connect", **order)
        for name in names:
            eventually(lambda: self.history.is_live(name) and self.history.session(name), f"{name} is greeted")
        return clients

    def process_of(self, name):
        """The process of a client."""
        return self._process_of[name]

    def tell(self, name, order, side=CLIENT, **fields):
        """Gives one side of a name an order."""
        process = self._process_of[name] if side == CLIENT else self.app
        process.say(json.dumps({"name": name, "do": order, **fields}))

    def tell_both(self, names, order, **fields):
        """Gives both sides of each name an order."""
        for name in names:
            self.tell(name, order, **fields)
            self.tell(name, order, side=APP, **fields)

    def talk(self, names, pace_s):
        """From now on both sides of each name send a message every `pace_s`."""
        self._talking |= set(names)
        self.tell_both(names, "talk", pace_ms=round(pace_s * 1000))

    def hush(self, names):
        """Ends what `talk` began; what was said until then is known when it returns."""
        sides = [(name, side) for name in names if name in self._talking for side in (CLIENT, APP)]
        before = {one: self.history.hushes(*one) for one in sides}
        for name, side in sides:
            self.tell(name, "hush", side)
        for one in sides:
            eventually(lambda: self.history.hushes(*one) > before[one] or self.history.end(*one), f"{one} is quiet")
        self._talking -= set(names)

    def grows(self, name, direction, count=1, limit=WAIT_MAX_S):
        """Waits until so many more messages have arrived."""
        self.until(name, direction, self.arrived(name, direction) + count, limit)

    def all_grow(self, names, count, limit=WAIT_MAX_S):
        """Waits until so many more messages have arrived in each direction of each name."""
        before = {(name, way): self.arrived(name, way) for name in names for way in DIRECTIONS}
        eventually(lambda: all(self.arrived(*one) >= count + had for one, had in before.items()),
                   f"{count} more messages each way", limit)

    def arrived(self, name, direction):
        return self.history.numbers(name, direction)[1]

    def until(self, name, direction, count, limit):
        """Waits until so many messages have arrived."""
        eventually(lambda: self.arrived(name, direction) >= count, f"{name} {direction}: {count} messages", limit)

    def until_both(self, names, count, limit):
        """Waits until so many messages have arrived in each direction of each name."""
        eventually(
            lambda: all(self.arrived(name, way) >= count for name in names for way in DIRECTIONS),
            f"{count} messages each way", limit)

    def check(self, gateway, names, limit):
        """Nobody says more, and the faults are over: within `limit` all is right and the registry is the reality."""
        self.hush(names)
        history = self.history

        def listed():
            return [session["id"] for session in gateway.sessions()]

        try:
            eventually(lambda: not history.lost() and not history.registry_differs(listed()),
                       "all has arrived, has its outcome, and the registry is the reality", limit)
        finally:
            history.check(listed())
