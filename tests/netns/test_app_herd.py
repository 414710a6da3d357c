"""C22 on the app leg: the app is restarted, so all sessions end in one moment, and all clients come back at once."""

import asyncio
import random
import time
from collections import Counter

from websockets.exceptions import InvalidStatus

from kit.history import APP, CLIENT
from kit.machine import cpu_seconds
from kit.wait import eventually
from world import SLACK_S, Footprint, back_to

HERD = 150
# Each place is needed: if one of the old sessions kept its own, somebody would not come back.
CAP = HERD + 1
ALL_BACK_S = 5.0
ANSWER_MAX_S = 1.0
# Clients try again at a random moment within this time, as those of a page with jitter do.
PAUSE_S = 0.5


class Herd:
    """Clients that try until they are let in, and count how they were refused."""

    def __init__(self, world, names):
        self._world, self.names = world, names
        self.refused = Counter()
        self.back = 0

    async def come_back(self):
        await asyncio.gather(*map(self._one, self.names))

    async def _one(self, name):
        while True:
            await asyncio.sleep(random.uniform(0, PAUSE_S))
            try:
                await self._world.peers.connect(name, self._world.far, self._world.far_url, open_timeout=ALL_BACK_S)
                self.back += 1
                return
            except InvalidStatus as refusal:
                self.refused[refusal.response.status_code] += 1


def refusal(world, name):
    """The status that a client gets instead of a session."""
    try:
        world.near_peer(name)
    except InvalidStatus as refused:
        return refused.response.status_code
    raise AssertionError(f"{name} was let in")


def test_the_app_is_restarted_and_all_come_back(world, gateway):
    peers = world.start_peers(gateway, settings={"limits.sessions_max": str(CAP)})
    metric = world.gateway.metric
    old = [world.near_peer("old-near"), *world.far_peers(HERD, "old")]
    peers.both_say(old)
    assert refusal(world, "one-too-many") == 503
    full = Footprint(world.gateway)

    peers.stop_app()
    for name in old:
        code, _ = peers.told(name, CLIENT, 2 * SLACK_S)
        assert code == 1012, "come back"
    eventually(lambda: not world.listed(), "no session is left", SLACK_S)

    # While nobody is there, each who asks is told so, and the gateway dials for nobody else.
    herd = Herd(world, [f"new-{number}" for number in range(HERD)])
    cpu, begin = cpu_seconds(world.gateway.process.pid), time.monotonic()
    peers.start(herd.come_back())
    eventually(lambda: herd.refused[502] > HERD, "each was refused, on average")
    assert metric("pulsegate_upstream_up") == 0
    peers.start_app_again()
    started = time.monotonic()
    world.near_peer("near")
    peers.talk(["near"], 0.02)
    asked = time.monotonic()
    while herd.back < HERD and time.monotonic() - started <= ALL_BACK_S:
        assert metric("pulsegate_sessions") <= CAP
        assert time.monotonic() - asked <= ANSWER_MAX_S, "an operator is answered"
        asked = time.monotonic()
    took = time.monotonic() - started
    assert herd.back == HERD, f"{herd.back} of {HERD} are back, refused {herd.refused}"
    cpu = cpu_seconds(world.gateway.process.pid) - cpu
    print(f"{HERD} back {took:.2f} s after the app, refused {dict(herd.refused)}, {cpu:.2f} s of processor, "
          f"worst echo {peers.worst_echo_s('near'):.3f} s")
    assert cpu <= time.monotonic() - begin

    # Every place has been given back and taken again: not one too few, not one too many.
    assert refusal(world, "again-one-too-many") == 503
    eventually(lambda: len(world.listed()) == CAP, "all are listed", SLACK_S)
    for name in old:
        tombstone = world.ended_as(name)
        assert (tombstone["leg"], tombstone["reason"]) == ("app", "reset")
    peers.both_say(herd.names)
    world.check_history()
    assert peers.history.open_names(APP) == sorted(["near", *herd.names])
    assert peers.worst_echo_s("near") <= ANSWER_MAX_S
    back_to(full, world.gateway, SLACK_S, memory_factor=None)

    ended = {reason: count for reason, count in world.gateway.reasons("pulsegate_sessions_ended_total").items() if count}
    assert ended == {"reset": CAP}
    assert metric("pulsegate_sessions_opened_total") == 2 * CAP
    rejected = world.gateway.reasons("pulsegate_handshakes_rejected_total")
    assert {reason: count for reason, count in rejected.items() if count} == {
        "app_unreachable": herd.refused[502], "sessions_max": 2 + herd.refused[503]}
    assert metric("pulsegate_upstream_connect_failures_total") == herd.refused[502], "one call for each who asked"
    assert metric("pulsegate_upstream_up") == 1
    assert metric("pulsegate_dead_peers_total") == 0
