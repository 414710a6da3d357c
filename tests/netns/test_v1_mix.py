"""Faults of all kinds one upon another, in an order that a seed gives: clients of pulsegate.v1 lose no message.

By hand: PULSEGATE_TEST_SEED=7 for one order again, PULSEGATE_TEST_FAULTS=200 for a longer one."""

import os
import random
import time

from kit.machine import stop, wake
from world import BOUND_S, SLACK_S

CLIENTS = 6
PACE_S = 0.03
SEED = int(os.environ.get("PULSEGATE_TEST_SEED", time.time()))
FAULTS = int(os.environ.get("PULSEGATE_TEST_FAULTS", 4))
# Most are shorter than the bound of profile fast, and some end a connection.
FAULT_MAX_S = BOUND_S + SLACK_S
# A client whose dial was lost waits for its next SYN: 1 s, 3 s, 7 s after the first.
SETTLED_MAX_S = 8.0 + SLACK_S


class Mix:
    """What can happen; each begins when it is called, and returns what ends it."""

    def __init__(self, world, clients, names, dice):
        self._world, self._clients, self._names, self._dice = world, clients, names, dice

    def dead_line(self):
        self._world.client_path.drop()
        return self._world.client_path.heal

    def nothing_from_the_client(self):
        self._world.client_path.drop(outgoing=False)
        return self._world.client_path.heal

    def nothing_toward_the_client(self):
        self._world.client_path.drop(incoming=False)
        return self._world.client_path.heal

    def bad_line(self):
        self._world.client_path.lose(self._dice.choice([10, 30, 60]))
        return self._world.client_path.heal

    def resets(self):
        self._world.client_path.reset()
        return self._world.client_path.heal

    def big_packets_vanish(self):
        self._world.client_path.lose_big_packets()
        return self._world.client_path.heal

    def bad_line_to_the_app(self):
        self._world.app_path.lose(20)
        return self._world.app_path.heal

    def stopped_clients(self):
        stop(self._clients)
        return lambda: wake(self._clients)

    def stopped_app(self):
        stop(self._world.numbered.app)
        return lambda: wake(self._world.numbered.app)

    def stopped_gateway(self):
        stop(self._world.gateway.process)
        return lambda: wake(self._world.gateway.process)

    def cuts(self):
        for name in self._dice.sample(self._names, 3):
            self._world.numbered.tell(name, "cut")
        return lambda: None

    def a_page_that_reads_nothing(self):
        name = self._dice.choice(self._names)
        self._world.numbered.tell(name, "read", on=False)
        return lambda: self._world.numbered.tell(name, "read", on=True)

    def large_messages(self):
        self._world.numbered.tell_both(self._names, "say", count=40, padding=3000)
        return lambda: None


def test_faults_one_upon_another(world, gateway):
    print(f"PULSEGATE_TEST_SEED={SEED} PULSEGATE_TEST_FAULTS={FAULTS}")
    dice = random.Random(SEED)
    settings = {"v1.window_messages": "100", "v1.window_bytes": "64KiB", "liveness.app_frozen_after": "20s",
                "liveness.app_write_stall_after": "20s"}
    numbered = world.start_numbered(gateway, settings=settings)
    names = world.far_numbered(CLIENTS)
    near = world.near_numbered()
    mix = Mix(world, numbered.process_of(names[0]), names, dice)
    kinds = [kind for kind in vars(Mix) if not kind.startswith("_")]
    numbered.talk([*names, near], PACE_S)
    for _ in range(FAULTS):
        kind, lasts_s = dice.choice(kinds), dice.uniform(0.2, FAULT_MAX_S)
        print(f"{kind} for {lasts_s:.1f} s")
        end = getattr(mix, kind)()
        # The schedule is what is tested.
        time.sleep(lasts_s)
        end()
        time.sleep(dice.choice([0, 0.1, 1]))
    numbered.check(world.gateway, [*names, near], SETTLED_MAX_S)
    history = numbered.history
    print("resumed:", [history.resumes(name) for name in [*names, near]])
    assert [history.resets(name) for name in [*names, near]] == [0] * (CLIENTS + 1), "no session was lost"
    assert world.gateway.metric("pulsegate_dead_peers_total", leg="app") == 0
    assert world.gateway.metric("pulsegate_sessions_opened_total", mode="v1") == CLIENTS + 1
