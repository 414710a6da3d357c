"""The history checker of pulsegate.v1 is tested too: each planted bug must be found, and an honest run must not."""

import pytest

from kit.v1_history import V1History

MESSAGES = 300
CUT_AT, RESET_AT = 100, 200


def peer(event, **fields):
    return "peer", {"event": event, "name": "ada"} | fields


def app(event, **fields):
    return "app", {"event": event, "name": "ada"} | fields


def to_app(number):
    return app("arrived", text=f"ada to_app {number}")


def outcome(number, told="delivered"):
    return peer("outcome", number=number, outcome=told)


def to_client(number, seq=None):
    return peer("message", seq=seq or number, text=f"ada to_client {number}")


def exchange(number, seq=None):
    """One message each way, to its end."""
    return [peer("sent", number=number), to_app(number), outcome(number), app("sent", number=number),
            to_client(number, seq)]


def honest():
    """A session that is cut once and resumed, as both ends tell it."""
    told = [app("opened", session="id-1"), peer("live", resumed=False)]
    for number in range(1, MESSAGES + 1):
        told += exchange(number)
        if number == CUT_AT:
            told += [peer("detached"), peer("live", resumed=True)]
    return told


def restarted():
    """A session that is lost, with what was under way both ways, and the next one."""
    told = [app("opened", session="id-1"), peer("live", resumed=False)]
    for number in range(1, RESET_AT + 1):
        told += exchange(number)
    first, second = RESET_AT + 1, RESET_AT + 2
    told += [peer("sent", number=first), peer("sent", number=second), app("sent", number=first), to_app(first)]
    told += [outcome(first, "expired; sent: Maybe"), outcome(second, "expired; sent: Maybe")]
    told += [peer("reset", undelivered=2), peer("detached"), app("opened", session="id-2"), peer("live", resumed=False)]
    # An app that was out of reach hears of the old session's end when the next one is open.
    told.append(app("closed", session="id-1", code=1006))
    for seq, number in enumerate(range(second + 1, second + 50), 1):
        told += exchange(number, seq)
    return told


def history_of(told):
    history = V1History()
    for side, report in told:
        (history.take_peer if side == "peer" else history.take_app)(report)
    return history


def without(told, *gone):
    return [one for one in told if one not in gone]


def replaced(told, old, *new):
    place = told.index(old)
    return [*told[:place], *new, *told[place + 1 :]]


def swapped(told, first, second):
    return [{0: second, 1: first}[[first, second].index(one)] if one in (first, second) else one for one in told]


def behind(told, place, *more):
    at = told.index(place) + 1
    return [*told[:at], *more, *told[at:]]


AFTER_CUT = CUT_AT + 1
BUGS = {
    "a message to the app is lost": lambda told: without(told, to_app(150)),
    "a message to the app is lost, and nobody is told": lambda told: without(told, to_app(150), outcome(150)),
    "the last message to the app is lost, and acknowledged": lambda told: without(told, to_app(MESSAGES)),
    "a lost message is called delivered after a resume": lambda told: without(told, to_app(AFTER_CUT)),
    "two messages to the app are swapped": lambda told: swapped(told, to_app(7), to_app(8)),
    "a message to the app is replayed once too often": lambda told: behind(told, to_app(AFTER_CUT), to_app(CUT_AT)),
    "the last message to the app comes twice": lambda told: [*told, to_app(MESSAGES)],
    "a message to the app that nobody sent": lambda told: [*told, to_app(MESSAGES + 1)],
    "a message to the client is lost": lambda told: without(told, to_client(150)),
    "the last message to the client is lost": lambda told: without(told, to_client(MESSAGES)),
    "a message to the client is lost in a resume, and the count hides it": lambda told: [
        to_client(one[1]["seq"], one[1]["seq"] - 1) if one[1]["event"] == "message" and one[1]["seq"] > AFTER_CUT else one
        for one in without(told, to_client(AFTER_CUT))],
    "two messages to the client are swapped": lambda told: swapped(told, to_client(7), to_client(8)),
    "a message to the client is replayed once too often": lambda told: behind(told, to_client(AFTER_CUT), to_client(CUT_AT)),
    "the count of messages to the client jumps": lambda told: replaced(told, to_client(150), to_client(150, 151)),
    "another's message": lambda told: replaced(told, to_client(9), peer("message", seq=9, text="bob to_client 9")),
    "a byte is changed": lambda told: replaced(told, to_app(9), app("arrived", text="ada to_app 9\0")),
    "a message has two outcomes": lambda told: behind(told, outcome(9), outcome(9)),
    "a message has a second, other outcome": lambda told: behind(told, outcome(9), outcome(9, "expired; sent: Maybe")),
    "a message has no outcome": lambda told: without(told, outcome(MESSAGES)),
    "an outcome for what nobody sent": lambda told: [*told, outcome(MESSAGES + 1)],
    "an arrived message is called not sent": lambda told: replaced(told, outcome(9), outcome(9, "expired; sent: No")),
    "an arrived message is called refused": lambda told: replaced(told, outcome(9), outcome(9, "refused: AppGone")),
    "a session that lives gives a message up": lambda told: without(
        replaced(told, outcome(9), outcome(9, "expired; sent: Maybe")), to_app(9)),
    "the app gets a second connection": lambda told: behind(told, to_app(AFTER_CUT), app("opened", session="id-2")),
    "the client does not come back": lambda told: [*told, peer("detached")],
    "a resume is another session": lambda told: replaced(told, peer("live", resumed=True), peer("live", resumed=False)),
    "a session begins as a resume": lambda told: replaced(told, peer("live", resumed=False), peer("live", resumed=True)),
}

RESET_BUGS = {
    "what was acknowledged is lost with the session": lambda told: without(told, to_app(RESET_AT)),
    "what was to be delivered arrives in the next session as well": lambda told: behind(
        told, to_app(RESET_AT + 3), to_app(RESET_AT + 1)),
    "a hole in the next session": lambda told: without(told, to_app(RESET_AT + 9)),
    "a hole to the client in the next session": lambda told: without(told, to_client(RESET_AT + 9, 7)),
    "an unknown outcome is called certain": lambda told: replaced(
        told, outcome(RESET_AT + 1, "expired; sent: Maybe"), outcome(RESET_AT + 1, "expired; sent: No")),
    "the next session is not a new one": lambda told: told[: told.index(peer("reset", undelivered=2))] + [
        peer("live", resumed=False)] + told[told.index(peer("reset", undelivered=2)) + 4 :],
}


def app_back(told, session="id-1", replayed=2, again=(CUT_AT - 1, CUT_AT)):
    """The app is gone behind message `CUT_AT` and back with some of the messages before it."""
    back = app("opened", session=session, resumed=True, replayed=replayed)
    return behind(told, to_app(CUT_AT), back, *map(to_app, again))


APP_BUGS = {
    "more repeats than were announced": lambda told: app_back(told, replayed=1),
    "repeats are told of, and something else is missing": lambda told: without(app_back(told), to_app(AFTER_CUT)),
    "an app is back to another session": lambda told: app_back(told, session="id-2"),
}


def test_an_app_that_is_back_may_get_what_it_was_told_to_expect():
    history = history_of(app_back(honest()))
    history.check(["id-1"])
    assert history.app_resumes("ada") == 1


@pytest.mark.parametrize("bug", APP_BUGS.values(), ids=APP_BUGS.keys())
def test_a_planted_bug_in_a_return_of_the_app_is_found(bug):
    with pytest.raises(AssertionError, match="ada"):
        history_of(bug(honest())).check(["id-1"])


def test_an_honest_run_is_found_honest():
    history = history_of(honest())
    history.check(["id-1"])
    assert (history.resumes("ada"), history.resets("ada"), history.delivered("ada")) == (1, 0, MESSAGES)


def test_what_was_under_way_may_be_lost_with_its_session():
    history = history_of(restarted())
    history.check(["id-2"])
    assert history.resets("ada") == 1


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS.keys())
def test_a_planted_bug_is_found(bug):
    told = bug(honest())
    assert told != honest()
    history = history_of(told)
    # A test that waits for the end looks again and again, and must find the same.
    history.lost()
    with pytest.raises(AssertionError, match="ada"):
        history.check(["id-1"])


@pytest.mark.parametrize("bug", RESET_BUGS.values(), ids=RESET_BUGS.keys())
def test_a_planted_bug_in_a_restart_is_found(bug):
    told = bug(restarted())
    assert told != restarted()
    with pytest.raises(AssertionError, match="ada"):
        history_of(told).check(["id-2"])


def late(number):
    return app("arrived", session="id-1", text=f"ada to_app {number}")


def test_what_comes_late_on_the_connection_of_a_lost_session_is_in_no_order():
    told = without(restarted(), to_app(RESET_AT + 1))
    history_of([*told, late(RESET_AT + 1)]).check(["id-2"])


@pytest.mark.parametrize("number", [RESET_AT + 3, RESET_AT], ids=["of the next session", "of its own"])
def test_a_message_that_comes_late_a_second_time_is_found(number):
    with pytest.raises(AssertionError, match="again, on the connection"):
        history_of([*restarted(), late(number)]).check(["id-2"])


def test_a_detachment_in_a_run_without_faults_is_found():
    calm = without(honest(), peer("detached"), peer("live", resumed=True))
    history_of(calm).check_nobody_detached()
    with pytest.raises(AssertionError, match="detached"):
        history_of(honest()).check_nobody_detached()
