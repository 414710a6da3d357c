"""The history checker is tested too: each planted bug must be found, and an honest run must not."""

import pytest

from kit.history import APP, CLIENT, TO_APP, TO_CLIENT, History

NAMES = ("ada", "bob")
MESSAGES = 3000


def honest(texts, _):
    return texts


def drops_each_thousandth(texts, _):
    return [text for number, text in enumerate(texts, 1) if number % 1000]


def swaps_two(texts, _):
    return [*texts[:7], texts[8], texts[7], *texts[9:]]


def delivers_twice(texts, _):
    return [*texts[:8], texts[7], *texts[8:]]


def repeats_the_last(texts, _):
    return [*texts, texts[-1]]


def delivers_to_another(texts, others):
    return [*texts[:7], others[7], *texts[8:]]


def mixes_directions(texts, _):
    return [text.replace(TO_APP, TO_CLIENT) for text in texts]


def invents(texts, _):
    return [*texts, texts[-1].replace(str(MESSAGES), str(MESSAGES + 1))]


def changes_a_byte(texts, _):
    return [*texts[:7], texts[7] + "\0", *texts[8:]]


def run(bug):
    """All messages of all names, both ways; what the bug does happens to the first name on its way to the app."""
    history = History()
    for name in NAMES:
        history.opened(name, f"id-{name}")
    for direction in (TO_APP, TO_CLIENT):
        texts = {name: [history.send(name, direction) for _ in range(MESSAGES)] for name in NAMES}
        for name in NAMES:
            through = texts[name]
            if (name, direction) == (NAMES[0], TO_APP):
                through = bug(through, texts[NAMES[1]])
            for text in through:
                history.arrived(name, direction, text)
    return history


LISTED = [f"id-{name}" for name in NAMES]


def test_an_honest_run_is_found_honest():
    history = run(honest)
    history.check(LISTED)
    history.check_nobody_ended()


@pytest.mark.parametrize("bug", [
    drops_each_thousandth, swaps_two, delivers_twice, repeats_the_last, delivers_to_another, mixes_directions, invents,
    changes_a_byte,
], ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found(bug):
    history = run(bug)
    assert history.misdelivered(), "found where it happened"
    with pytest.raises(AssertionError, match="ada to_app"):
        history.check(LISTED)


def test_a_lost_tail_is_a_fault_only_while_the_session_lives():
    history = run(lambda texts, _: texts[:-1])
    assert not history.misdelivered()
    assert history.lost() == [f"ada to_app: {MESSAGES - 1} of {MESSAGES} arrived"]
    history.ended("ada", CLIENT, 1006)
    history.ended("ada", APP, 4408)
    assert not history.lost()
    history.check(["id-bob"])


@pytest.mark.parametrize("side", [CLIENT, APP])
def test_a_side_that_was_not_told_of_the_end_is_found(side):
    history = run(honest)
    history.ended("ada", side, 1006)
    for listed in (LISTED, ["id-bob"]):
        with pytest.raises(AssertionError, match="ada: "):
            history.check(listed)


@pytest.mark.parametrize("listed", [["id-ada"], [*LISTED, "id-ghost"]], ids=["misses one", "has a ghost"])
def test_a_registry_that_is_not_the_reality_is_found(listed):
    with pytest.raises(AssertionError, match="the history is wrong"):
        run(honest).check(listed)


def test_an_eviction_in_a_run_without_faults_is_found():
    history = run(honest)
    history.ended("ada", CLIENT, 1000)
    with pytest.raises(AssertionError):
        history.check_nobody_ended()
