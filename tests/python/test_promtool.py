"""`promtool check metrics` on a live scrape."""

import os
import shutil
import subprocess

from websockets.sync.client import connect


def test_promtool_accepts_a_live_scrape(gateway, chat):
    promtool = os.environ.get("PROMTOOL") or shutil.which("promtool")
    assert promtool, "promtool is missing (Debian package prometheus; tests/run.sh fetches it)"
    app = chat()
    running = gateway(app.url)
    with connect(running.url()) as ended:
        ended.send("hello")
        ended.recv()
    with connect(running.url()) as live:
        live.send("hello")
        live.recv()
        running.session_ended()
        text = running.scrape()
    assert 'pulsegate_sessions{state="live"} 1' in text
    assert 'pulsegate_sessions_ended_total{reason="closed"} 1' in text
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
