"""C19 and C21: no descriptors left, and next to no CPU."""

import re
import threading
import time

from kit import raw
from kit.machine import cpu_seconds, files_capped, open_files, starved
from kit.peer import Peer
from kit.raw import TEXT, frame
from kit.wait import eventually

HELD = 5
WAITING = 6
WATCHED_S = 3.0
CPU_MAX = 0.2


def test_no_descriptors_left(gateway, chat):
    running = gateway(chat().url, "--profile", "fast")
    pid = running.process.pid
    held = [Peer(running) for _ in range(HELD)]
    before = open_files(pid)
    with files_capped(pid, spare=0):
        waiting = [raw.connect(running.address) for _ in range(WAITING)]
        for one in waiting:
            one.send(raw.upgrade(running.data))
        used, start = cpu_seconds(pid), time.monotonic()
        while time.monotonic() - start < WATCHED_S:
            for one in held:
                one.echo(f"in the shortage {time.monotonic()}")
            time.sleep(0.1)
        share = (cpu_seconds(pid) - used) / (time.monotonic() - start)
        print(f"CPU {share:.1%}")
        assert share < CPU_MAX, "the accept loop sleeps"
        logged = [line for line in running.process.reports if line["level"] == "WARN"]
        assert any("accept" in line["fields"]["message"] for line in logged), "the log says so"
        # Two clients leave: four descriptors for those that wait. A session takes two, and an accepted client for
        # whose app none is left is refused, which frees its own again.
        for one in held[:2]:
            one.cut()
        answers = []
        for one in waiting:
            answers.append(one.head().partition("\r\n")[0])
            one.close()
        print(answers)
        assert all(one.startswith(("HTTP/1.1 101 ", "HTTP/1.1 50")) for one in answers), "nobody hangs"
        eventually(lambda: len(running.sessions()) == HELD - 2, "they have gone")
        Peer(running).echo("served within the same limit")
    for one in held[2:]:
        one.echo("after the shortage")
        one.check()
    Peer(running).echo("and new ones are served")
    assert running.metric("pulsegate_dead_peers_total") == 0
    eventually(lambda: open_files(pid) <= before, "no descriptor is lost", 10)


STARVED_S = 12.0
SHARE = 0.10
TALKERS = 6
# Verdicts may come as much later as timers run late, within twice the verdict_after of profile fast.
BOUND_S, LATE_MAX_S = 3.0, 4.0


class Talker:
    """Keeps a gateway busy: many messages in flight, all echoed, and pings answered by its `Peer`."""

    def __init__(self, gateway, stop):
        self.peer = Peer(gateway, "/talker")
        self._stop = stop
        self.sent = 0
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self):
        batch = frame(TEXT, b"z" * 64) * 200
        try:
            while not self._stop.is_set():
                with self.peer._writing:
                    self.peer.stream.send(batch)
                self.sent += 200
                eventually(lambda: self._stop.is_set() or len(self.peer.texts) >= self.sent - 400, "echoes", 60)
        except (OSError, AssertionError):
            pass


def test_a_tenth_of_a_core(gateway, chat):
    running = gateway(chat().url, "--profile", "fast")
    stop = threading.Event()
    quiet = [Peer(running, "/quiet") for _ in range(20)]
    doomed = Peer(running, "/doomed")
    talkers = [Talker(running, stop) for _ in range(TALKERS)]
    lag = running.metric("pulsegate_timer_lag_seconds_sum")
    with starved(running.process.pid, SHARE) as how:
        start, used = time.monotonic(), cpu_seconds(running.process.pid)
        doomed.answers = False
        eventually(lambda: doomed.close or doomed.ended, "the dead one is found", BOUND_S + LATE_MAX_S + 1)
        took = doomed.closed_at - start
        threading.Event().wait(max(0, start + STARVED_S - time.monotonic()))
        share = (cpu_seconds(running.process.pid) - used) / (time.monotonic() - start)
        for one in (*quiet, *(talker.peer for talker in talkers)):
            one.check()
    stop.set()
    lag = running.metric("pulsegate_timer_lag_seconds_sum") - lag
    worst = running.scrape()
    late = re.findall(r'pulsegate_timer_lag_seconds_bucket\{le="([^"]+)"\} (\d+)', worst)
    print(f"by {how}: {share:.1%} of a core, {lag:.2f} s of timer lag in all, dead found after {took:.2f} s, "
          f"withheld {running.metric('pulsegate_verdicts_withheld_total'):.0f}, buckets {late}")
    assert share <= SHARE * 1.5, "it was starved"
    assert lag > 0.1, "the lag shows"
    assert 2.0 <= took <= BOUND_S + LATE_MAX_S
    metric = running.metric
    assert metric("pulsegate_dead_peers_total", leg="client", cause="frozen") == 1
    assert metric("pulsegate_dead_peers_total") == 1, "nobody living"
    assert metric("pulsegate_false_evictions_total") == 0
    for one in quiet:
        one.echo("still here")
