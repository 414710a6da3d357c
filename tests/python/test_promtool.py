"""`promtool check metrics` on a live scrape."""

import os
import pathlib
import shutil
import subprocess

from websockets.sync.client import connect

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"


def promtool(*arguments, text=None):
    tool = os.environ.get("PROMTOOL") or shutil.which("promtool")
    assert tool, "promtool is missing (Debian package prometheus; tests/run.sh fetches it)"
    return subprocess.run([tool, *arguments], input=text, capture_output=True, text=True, timeout=30)


def test_promtool_accepts_the_scrape_configuration():
    checked = promtool("check", "config", str(DEPLOY / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_promtool_accepts_a_live_scrape(gateway, chat):
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
    checked = promtool("check", "metrics", text=text)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
