"""C19, the gauge: an operator must see that no descriptors are left."""

import http.client
import re

from kit import raw
from kit.machine import files_capped
from kit.wait import WAIT_MAX_S, eventually


class Scraper:
    """Scrapes over one kept connection, as Prometheus does: it needs no new descriptor."""

    def __init__(self, gateway):
        self._connection = http.client.HTTPConnection(gateway.ops, timeout=WAIT_MAX_S)

    def metric(self, name):
        """Sum over the samples of one metric; None when there is none."""
        self._connection.request("GET", "/metrics")
        found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self._connection.getresponse().read().decode(), re.MULTILINE)
        return sum(map(float, found)) if found else None

    def close(self):
        self._connection.close()


def test_a_metric_says_that_no_descriptors_are_left(gateway, chat):
    running = gateway(chat().url)
    scraper = Scraper(running)
    with files_capped(running.process.pid, spare=8):
        assert scraper.metric("process_max_fds") < 100, "the limit in force"
        waiting = [raw.connect(running.address) for _ in range(12)]
        for one in waiting:
            one.send(raw.upgrade(running.data))
        running.process.report(lambda line: "accept" in line["fields"].get("message", ""), "that it can't accept")
        # Not process_open_fds: to count its descriptors the process needs one more.
        assert scraper.metric("pulsegate_accept_paused") == 1
        assert scraper.metric("pulsegate_accept_failures_total") >= 1
        for one in waiting:
            one.close()
    eventually(lambda: raw.connect(running.address).close() or scraper.metric("pulsegate_accept_paused") == 0, "it recovers")
    scraper.close()
