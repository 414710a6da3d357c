"""C32 with pulsegate.v1: SIGTERM under load. What was acknowledged has arrived, and clients begin anew with the next one."""

import signal
import time

from kit.history import APP, TO_APP
from kit.peer import Peer
from kit.wait import eventually

WINDOW_S, DEADLINE_S = 2.0, 6.0
SLACK_S = 1.0
TALKERS = 24
QUIET = 16
PACE_S = 0.02
V1 = ["Sec-WebSocket-Protocol: pulsegate.v1"]


class Load:
    """Clients that talk, and clients by hand that see the codes."""

    def __init__(self, numbered, running):
        self.names = [f"one-{number}" for number in range(TALKERS)]
        self.numbered, self.running = numbered, running
        numbered.clients(running.url(""), self.names)
        self.by_hand = [Peer(running, "/neighbour", V1) for _ in range(QUIET)]
        numbered.talk(self.names, PACE_S)
        numbered.until_both(self.names, 20, 10)

    def terminate(self):
        self.running.stopped = True
        self.running.process.signal(signal.SIGTERM)
        return time.monotonic()

    def codes(self, limit):
        """What the clients by hand are told; each hangs up then."""
        eventually(lambda: all(one.close for one in self.by_hand), "all are told", limit)
        for one in self.by_hand:
            one.cut()
        return {one.close.close_code for one in self.by_hand}

    def ends(self):
        """When each session was told."""
        talkers = [self.numbered.history.end(name, APP)[1] for name in self.names]
        return [*talkers, *(one.closed_at for one in self.by_hand)]

    def check_acknowledged(self):
        """When the app has told all: whatever a client was told to be delivered came to it."""
        history = self.numbered.history
        eventually(lambda: all(history.end(name, APP) for name in self.names), "the app is told of all ends")
        assert history.misdelivered() == []
        assert {history.end(name, APP)[0] for name in self.names} == {1012}
        for name in self.names:
            sent, arrived = history.numbers(name, TO_APP)
            print(f"{name}: {sent} sent, {arrived} arrived, {history.delivered(name)} acknowledged", end="; ")
            assert 20 <= history.delivered(name) <= arrived <= sent


def test_sigterm_under_load(numbered, gateway):
    settings = {"drain.window": f"{WINDOW_S:.0f}s", "drain.deadline": f"{DEADLINE_S:.0f}s"}
    upstream = numbered.start_app()
    running = gateway(upstream, settings=settings)
    load = Load(numbered, running)
    told = load.terminate()
    assert load.codes(WINDOW_S + SLACK_S) == {4503}
    assert running.process.wait(DEADLINE_S) == 0
    took = time.monotonic() - told
    load.check_acknowledged()
    assert took <= DEADLINE_S
    ends = [at - told for at in load.ends()]
    assert max(ends) <= WINDOW_S + SLACK_S
    quarters = [sum(1 for at in ends if at // (WINDOW_S / 4) == quarter) for quarter in range(4)]
    assert all(count >= len(ends) / 12 for count in quarters), f"spread over the window: {quarters}"
    drained = [line for line in running.process.reports if line["fields"].get("reason") == "drained"]
    assert len(drained) == TALKERS + QUIET
    # The next one at the same place knows none of the sessions: all begin anew, and know what may be lost.
    following = gateway(upstream, listen=running.data)
    history = numbered.history
    eventually(lambda: all(history.resets(name) == 1 and history.is_live(name) for name in load.names), "all are back", 5)
    numbered.all_grow(load.names, 10)
    numbered.check(following, load.names, 2 + SLACK_S)
    assert following.reasons("pulsegate_resume_failures_total")["unknown"] >= TALKERS


def test_a_second_signal_cuts_the_window_short(numbered, gateway):
    running = gateway(numbered.start_app(), settings={"drain.window": "60s", "drain.deadline": "60s"})
    load = Load(numbered, running)
    load.terminate()
    running.process.report(lambda line: line["fields"]["message"] == "draining", "draining")
    second = load.terminate()
    assert load.codes(2 + SLACK_S) == {4503}
    assert running.process.wait(5) == 0
    assert time.monotonic() - second <= 5
    load.check_acknowledged()
