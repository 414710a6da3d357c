"""Where these tests happen: far and near clients, a gateway, an app, each in a network of its own (profile fast)."""

import os
import re
import sys
import time
from pathlib import Path as File

from kit.netns import Path, Place
from kit.v1 import Numbered
from kit.wait import eventually
from peers import Peers

TESTS = File(__file__).resolve().parents[1]
PING_INTERVAL_S, VERDICT_AFTER_S = 1.0, 2.0
BOUND_S = PING_INTERVAL_S + VERDICT_AFTER_S
# What two busy cores may add between a verdict and a handler that runs.
SLACK_S = 1.0
# The app leg has longer limits of its own by default; with these both legs have the same bound.
SAME_BOUND_FOR_APPS = {"liveness.app_frozen_after": f"{BOUND_S:g}s", "liveness.app_write_stall_after": f"{BOUND_S:g}s"}

NODE_APPS = TESTS / "node" / "apps"
CLIENTS = {
    "a page in Chromium": (["node", str(NODE_APPS / "browser.mjs")], {"readyState": 1}),
    "node ws": (["node", str(NODE_APPS / "client.mjs")], {"readyState": 1}),
    "python websockets": ([sys.executable, str(TESTS / "netns" / "client.py")], {"state": "OPEN"}),
}


class World:
    """far client --(client path)-- gateway --(app path)-- app, and a near client on a healthy path."""

    def __init__(self, start_process):
        self._start_process = start_process
        self.places = []
        self.middle, self.far, self.near, self.apps = map(self._place, ("gateway", "far", "near", "app"))
        self.client_path = Path(self.middle, self.far, 1)
        self.near_path = Path(self.middle, self.near, 2)
        self.app_path = Path(self.middle, self.apps, 3)
        self.peers = None

    def _place(self, name):
        self.places.append(Place(name))
        return self.places[-1]

    def path_of(self, leg):
        """The path that a test breaks to hit this leg of the far sessions."""
        return {"client": self.client_path, "app": self.app_path}[leg]

    def start(self, gateway, chat, **options):
        self.app = chat(self.apps, self.app_path.there_address)
        self.gateway = gateway(self.app.url, "--profile", "fast", listen="0.0.0.0:0", place=self.middle, **options)
        self._port = self.gateway.address[1]

    def start_peers(self, gateway, *args, own_pings=None, **options):
        """A gateway between the many clients and the app of `peers`, which may send pings of their own."""
        self.peers = Peers(own_pings)
        upstream = self.peers.app(self.apps, self.app_path.there_address)
        profile = args or ("--profile", "fast")
        self.gateway = gateway(upstream, *profile, listen="0.0.0.0:0", place=self.middle, **options)
        self._port = self.gateway.address[1]
        return self.peers

    def start_numbered(self, gateway, *args, **options):
        """A gateway between clients of pulsegate.v1 and an app that number their messages."""
        self.numbered = Numbered(self._start_process)
        upstream = self.numbered.start_app(self.apps, self.app_path.there_address)
        profile = args or ("--profile", "fast")
        self.gateway = gateway(upstream, *profile, listen="0.0.0.0:0", place=self.middle, **options)
        self._port = self.gateway.address[1]
        return self.numbered

    def far_numbered(self, count, label="far"):
        """So many far clients of pulsegate.v1 in one process; their names."""
        names = [f"{label}-{number}" for number in range(count)]
        self.numbered.clients(self.far_url, names, self.far)
        return names

    def near_numbered(self, name="near"):
        self.numbered.clients(self.near_url, [name], self.near)
        return name

    @property
    def far_url(self):
        return f"ws://{self.client_path.here_address}:{self._port}"

    @property
    def near_url(self):
        return f"ws://{self.near_path.here_address}:{self._port}"

    def far_peers(self, count, label="far", **options):
        """Connects that many far clients of `peers` and returns their names."""
        names = [f"{label}-{number}" for number in range(count)]
        for name in names:
            self.peers.client(name, self.far, self.far_url, **options)
        return names

    def near_peer(self, name="near", **options):
        self.peers.client(name, self.near, self.near_url, **options)
        return name

    def listed(self):
        """The ids of the registry."""
        return [session["id"] for session in self.gateway.sessions()]

    def dead_clients(self, cause):
        """How many clients were declared dead for this cause."""
        return self.gateway.metric("pulsegate_dead_peers_total", leg="client", cause=cause)

    def packets_sent_again(self):
        """By the gateway's kernel, so far."""
        names, values = [
            line.split() for line in File(f"/proc/{self.gateway.process.pid}/net/snmp").read_text().splitlines()
            if line.startswith("Tcp:")
        ]
        return int(values[names.index("RetransSegs")])

    def check_history(self):
        """Call it when the network has healed: within T_dead the history is right and the registry is the reality."""
        self.peers.hush()
        history = self.peers.history

        def settled():
            return not history.lost() and not history.registry_differs(self.listed())

        try:
            eventually(settled, "all has arrived and the registry is the reality", BOUND_S + SLACK_S)
        finally:
            history.check(self.listed())

    def ended_as(self, name):
        """The tombstone of a name."""
        return self.tombstone(self.peers.history.session(name))

    def client(self, kind, place, path):
        """A connected client, which has had its first echo, and the id of its session."""
        known = {session["id"] for session in self.gateway.sessions()}
        command = [*CLIENTS[kind][0], f"ws://{path.here_address}:{self._port}/chat"]
        client = self._start_process(kind, place.command(command))
        client.event("open")
        client.say("hello")
        client.event("message")
        session = self.gateway.session(lambda session: session["id"] not in known)
        return client, session["id"]

    def far_client(self, kind="node ws"):
        return self.client(kind, self.far, self.client_path)

    def near_client(self, kind="node ws"):
        return self.client(kind, self.near, self.near_path)

    def app_close(self, limit):
        """What the app's close handler saw first, and the seconds until then from now."""
        start = time.monotonic()
        close = self.app.event("close", limit)
        return close, close["seen_at"] - start

    def tombstone(self, session):
        """What is left of a session; a peer may hear of the end a moment before the registry does."""

        def gone():
            status, problem = self.gateway.ask(f"/v1/sessions/{session}")
            return problem["session"] if status == 410 else None

        return eventually(gone, "the session has ended", SLACK_S)

    def still_talks(self, client, text):
        client.say(text)
        client.report(lambda report: report.get("text") == text, f"the echo of {text!r}")

    def close(self):
        if self.peers:
            self.peers.close()
        for place in self.places:
            place.close()


class Footprint:
    """What the gateway holds: descriptors, resident memory, and its kernel's TCP sockets."""

    def __init__(self, gateway):
        process = File(f"/proc/{gateway.process.pid}")
        self.descriptors = len(os.listdir(process / "fd"))
        self.resident_kib = int(re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text()).group(1))
        tcp = re.search(r"TCP: inuse (\d+)", (process / "net" / "sockstat").read_text())
        self.sockets = int(tcp.group(1))

    def is_back_to(self, start, memory_factor, sockets):
        """Not one descriptor or socket more; memory within the factor, if one is given."""
        return (
            self.descriptors <= start.descriptors
            and (not sockets or self.sockets <= start.sockets)
            and (memory_factor is None or self.resident_kib <= start.resident_kib * memory_factor)
        )


def back_to(start, gateway, limit, memory_factor=1.1, sockets=True):
    """Waits until the gateway holds no more than it did at the start; without `sockets` its kernel may still offer last
    words to peers that don't take them."""
    try:
        eventually(
            lambda: Footprint(gateway).is_back_to(start, memory_factor, sockets),
            "descriptors, sockets and memory are back", limit)
    except AssertionError as failure:
        raise AssertionError(f"{failure}: {vars(start)} became {vars(Footprint(gateway))}") from None


def assert_dead_client(world, session, cause):
    """The verdict as the control API, the log and the metrics tell it."""
    tombstone = world.tombstone(session)
    assert (tombstone["id"], tombstone["reason"], tombstone["leg"]) == (session, cause, "client")
    assert "probes unanswered" in tombstone["verdict"]
    assert world.gateway.session_ended(lambda fields: fields["id"] == session)["reason"] == cause
    metric = world.gateway.metric
    assert metric("pulsegate_dead_peers_total", leg="client", cause=cause) == 1
    assert metric("pulsegate_dead_peers_total") == 1
    assert metric("pulsegate_dead_peer_detection_seconds_count", leg="client", cause=cause) == 1
    assert 0 < metric("pulsegate_dead_peer_detection_seconds_sum") <= BOUND_S + 0.5
