"""The network goes dead for real: packets vanish between namespaces, and the bound must hold (profile fast)."""

import os
import sys
import time
from pathlib import Path as File

import pytest

from kit.netns import Path, Place
from kit.wait import eventually

TESTS = File(__file__).resolve().parents[1]
PING_INTERVAL_S, VERDICT_AFTER_S = 1.0, 2.0
BOUND_S = PING_INTERVAL_S + VERDICT_AFTER_S
# What two busy cores may add between a verdict and a handler that runs.
SLACK_S = 1.0

NODE_APPS = TESTS / "node" / "apps"
CLIENTS = {
    "a page in Chromium": (["node", str(NODE_APPS / "browser.mjs")], {"readyState": 1}),
    "node ws": (["node", str(NODE_APPS / "client.mjs")], {"readyState": 1}),
    "python websockets": ([sys.executable, str(TESTS / "netns" / "client.py")], {"state": "OPEN"}),
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root; tests/run.sh says so")


class World:
    """far client --(client path)-- gateway --(app path)-- app, and a near client on a healthy path."""

    def __init__(self, start_process):
        self._start_process = start_process
        self.places = []
        self.middle, self.far, self.near, self.apps = map(self._place, ("gateway", "far", "near", "app"))
        self.client_path = Path(self.middle, self.far, 1)
        self.near_path = Path(self.middle, self.near, 2)
        self.app_path = Path(self.middle, self.apps, 3)

    def _place(self, name):
        self.places.append(Place(name))
        return self.places[-1]

    def start(self, gateway, chat, **options):
        self.app = chat(self.apps, self.app_path.there_address)
        self.gateway = gateway(self.app.url, "--profile", "fast", listen="0.0.0.0:0", place=self.middle, **options)
        self._port = self.gateway.address[1]

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
        for place in self.places:
            place.close()


@pytest.fixture
def world(process):
    one = World(process)
    yield one
    one.close()


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


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_quiet_client_in_a_black_hole(world, gateway, chat, kind):
    world.start(gateway, chat)
    client, session = world.far_client(kind)
    near, near_session = world.near_client()
    world.client_path.drop()
    close, took = world.app_close(BOUND_S + SLACK_S)
    assert close["code"] == 4408
    assert "unreachable" in close["reason"]
    assert took <= BOUND_S + SLACK_S
    client.say("state")
    assert CLIENTS[kind][1].items() <= client.event("state").items(), "the client still believes: OPEN"
    assert_dead_client(world, session, "unreachable")
    world.still_talks(near, "nothing happened here")
    assert [one["id"] for one in world.gateway.sessions()] == [near_session]


def test_a_client_that_is_being_written_to(world, gateway, chat):
    """Data in flight when the path dies: our own writes must not count as life."""
    world.start(gateway, chat)
    client, session = world.far_client()
    world.client_path.drop(incoming=False)
    # The request still gets through; its echo is the first byte that is lost.
    client.say("this echo never arrives")
    eventually(
        lambda: world.gateway.ask(f"/v1/sessions/{session}")[1]["legs"]["app"]["messages"] == 2, "the echo is on its way")
    world.client_path.heal()
    world.client_path.drop()
    close, _ = world.app_close(BOUND_S + SLACK_S)
    assert close["code"] == 4408
    assert_dead_client(world, session, "unreachable")


def test_loss_from_the_client_only(world, gateway, chat):
    """C3: all that we send arrives, nothing comes back."""
    world.start(gateway, chat)
    _, session = world.far_client()
    near, _ = world.near_client()
    world.client_path.drop(outgoing=False)
    close, _ = world.app_close(BOUND_S + SLACK_S)
    assert close["code"] == 4408
    assert_dead_client(world, session, "unreachable")
    world.still_talks(near, "still here")


def test_loss_toward_the_client_only_while_it_sends(world, gateway, chat):
    """C4: what the client still gets through must not keep a connection on which nothing moves the other way."""
    world.start(gateway, chat)
    client, session = world.far_client()
    world.client_path.drop(incoming=False)
    start = time.monotonic()
    for number in range(200):
        # The client talks all the time, as one in the middle of a game does.
        client.say(f"anybody? {number}")
        if number % 10 == 0 and world.gateway.ask(f"/v1/sessions/{session}")[0] == 410:
            break
        time.sleep(0.05)
    close = world.app.event("close", 0.5)
    assert close["seen_at"] - start <= 2 * BOUND_S + SLACK_S, "the interval, or the write-stall limit behind it"
    assert close["code"] == 4408


def test_a_short_outage_kills_nobody(world, gateway, chat):
    world.start(gateway, chat)
    client, session = world.far_client()
    world.client_path.drop()
    eventually(
        lambda: world.gateway.ask(f"/v1/sessions/{session}")[1].get("state") == "suspect", "the session is suspect", BOUND_S)
    world.client_path.heal()
    eventually(lambda: world.gateway.ask(f"/v1/sessions/{session}")[1].get("state") == "live", "the session is live again")
    world.still_talks(client, "back again")
    assert world.gateway.metric("pulsegate_dead_peers_total") == 0
    assert world.gateway.metric("pulsegate_suspects_recovered_total", leg="client") >= 1


def test_an_app_in_a_black_hole(world, gateway, chat):
    world.start(gateway, chat)
    client, session = world.near_client()
    start = time.monotonic()
    world.app_path.drop()
    close = client.event("close", BOUND_S + SLACK_S)
    assert close["seen_at"] - start <= BOUND_S + SLACK_S
    assert close["code"] == 1012
    tombstone = world.tombstone(session)
    assert (tombstone["reason"], tombstone["leg"]) == ("unreachable", "app")
    assert world.gateway.metric("pulsegate_dead_peers_total", leg="app", cause="unreachable") == 1


def test_many_clients_in_the_same_black_hole(world, gateway, chat):
    """Half of all peers go at once: that is doubtful, not endless; the near half stays."""
    world.start(gateway, chat)
    far = [world.far_client()[1] for _ in range(4)]
    near = [world.near_client() for _ in range(4)]
    world.client_path.drop()
    start = time.monotonic()
    eventually(
        lambda: all(world.gateway.ask(f"/v1/sessions/{session}")[0] == 410 for session in far),
        "all far sessions have ended", 2 * BOUND_S + SLACK_S)
    assert time.monotonic() - start >= VERDICT_AFTER_S
    assert sorted(one["id"] for one in world.gateway.sessions()) == sorted(session for _, session in near)
    for client, _ in near:
        world.still_talks(client, "not me")
