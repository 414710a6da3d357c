"""C31 with pulsegate.v1 and upstream.hold: the app is killed, restarts, crashes in a loop, answers and then closes with 1011.

The app is node's ws, which tells a message before it answers the ping behind it: so what is acknowledged was told."""

import signal
import time
from pathlib import Path

import pytest
from kit.history import APP, CLIENT, TO_APP
from kit.wait import eventually

_APP = Path(__file__).parents[1] / "node" / "apps" / "journal.mjs"
NAMES = [f"one-{number}" for number in range(20)]
PACE_MS = 10
HOLD_S = 20
# Waits between two dials are drawn below a bound that grows from 0.25 to 5 s.
BACK_S = 5 + 2


class Restarting:
    """The app, as somebody sees it who starts it again and again on the same port."""

    def __init__(self, numbered, process):
        self.numbered, self._process, self._port = numbered, process, 0

    def start(self, **options):
        command = ["node", str(_APP), "127.0.0.1", str(self._port)]
        command += [f"{name.replace('_', '-')}={value}" for name, value in options.items()]
        self.app = self._process("the app", command, tell=self.numbered.history.take_app)
        self._port = self.app.event("listening")["port"]
        return f"http://127.0.0.1:{self._port}"

    def end(self, number):
        self.app.signal(number)
        self.app.wait()


@pytest.fixture
def restarting(numbered, process):
    return Restarting(numbered, process)


def begin(restarting, gateway, settings=(), **options):
    """Clients that talk through a gateway to an app that was started with `options`."""
    numbered = restarting.numbered
    settings = {"upstream.hold": f"{HOLD_S}s", "limits.close_timeout": "1s", **dict(settings)}
    running = gateway(restarting.start(**options), "--profile", "fast", settings=settings)
    numbered.clients(running.url(""), NAMES)
    for name in NAMES:
        numbered.tell(name, "talk", pace_ms=PACE_MS)
    return running


def until_all(numbered, what, limit, matches):
    eventually(lambda: all(matches(name) for name in NAMES), what, limit)


def check(numbered, running):
    """Whoever talks stops; then each message has come to the app, and its client knows that."""
    history = numbered.history
    for name in NAMES:
        numbered.tell(name, "hush")
    until_all(numbered, "they are quiet", 5, lambda name: history.hushes(name, CLIENT))
    # One whose app is away at this moment is nobody to compare.
    until_all(numbered, "the app is back for all", BACK_S, lambda name: not history.end(name, APP))
    listed = lambda: [session["id"] for session in running.sessions()]
    try:
        eventually(lambda: not history.lost() and not history.registry_differs(listed()), "all has arrived", BACK_S + 5)
    finally:
        history.check(listed())
    history.check_nobody_detached()
    assert running.metric("pulsegate_sessions_opened_total", mode="v1") == len(NAMES)
    assert running.metric("pulsegate_app_resumes_total") == sum(history.app_resumes(name) for name in NAMES)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "asked to leave"])
def test_clients_notice_nothing_of_an_app_that_restarts(restarting, gateway, number):
    numbered, history = restarting.numbered, restarting.numbered.history
    running = begin(restarting, gateway)
    for restarts in (1, 2, 3):
        before = {name: numbered.arrived(name, TO_APP) for name in NAMES}
        until_all(numbered, "messages come", 5, lambda name: numbered.arrived(name, TO_APP) > before[name] + 20)
        restarting.end(number)
        # A deploy takes its time; this is not what is tested.
        time.sleep(0.5)
        restarting.start()
        until_all(numbered, "the app is back", BACK_S, lambda name: history.app_resumes(name) >= restarts)
    check(numbered, running)
    redials = running.metric("pulsegate_app_redials_total")
    # In half a second nobody dials more than a few times, and after it once.
    assert redials <= len(NAMES) * 3 * 8, f"{redials} dials: a storm"


def test_an_app_that_crashes_in_a_loop_gets_all_in_the_end(restarting, gateway):
    numbered, history = restarting.numbered, restarting.numbered.history
    running = begin(restarting, gateway, dies_after=200)
    for _ in range(4):
        restarting.app.wait()
        restarting.start(dies_after=400)
        until_all(numbered, "the app is back", BACK_S, lambda name: history.app_resumes(name) or not restarting.app.running)
    restarting.app.wait(BACK_S + 5)
    restarting.start()
    check(numbered, running)


def test_an_app_that_answers_and_then_closes_with_1011_is_not_overrun(restarting, gateway):
    numbered, history = restarting.numbered, restarting.numbered.history
    running = begin(restarting, gateway)
    until_all(numbered, "messages come", 5, lambda name: numbered.arrived(name, TO_APP) > 20)
    restarting.end(signal.SIGKILL)
    ill_for = 4
    restarting.start(closes_for=ill_for)
    time.sleep(ill_for)
    dials = running.metric("pulsegate_app_redials_total", result="connected")
    # Full jitter from a quarter of a second on: four to five dials are the mean in 4 s.
    assert len(NAMES) <= dials <= len(NAMES) * 10, f"{dials} dials in {ill_for} s"
    check(numbered, running)


def test_an_app_that_stays_away_is_the_end_and_the_next_session_is_another(restarting, gateway):
    numbered, history = restarting.numbered, restarting.numbered.history
    running = begin(restarting, gateway, settings={"upstream.hold": "2s"})
    until_all(numbered, "messages come", 5, lambda name: numbered.arrived(name, TO_APP) > 20)
    restarting.end(signal.SIGKILL)
    gone_at = time.monotonic()
    until_all(numbered, "they are told", 2 + 2, lambda name: history.resets(name))
    assert time.monotonic() - gone_at >= 1.5
    restarting.start()
    until_all(numbered, "they have sessions again", 10, history.is_live)
    for name in NAMES:
        numbered.tell(name, "hush")
    until_all(numbered, "they are quiet", 5, lambda name: history.hushes(name, CLIENT))
    outcomes = [told for name in NAMES for told in history.outcomes(name).values()]
    assert all(len(told) <= 1 for told in outcomes)
    assert running.metric("pulsegate_sessions_ended_total", reason="reset") == len(NAMES)
