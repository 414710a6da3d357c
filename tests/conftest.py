"""Fixtures: everything a test starts is ended, and its log is shown when the test fails."""

from pathlib import Path

import pytest

from kit import raw
from kit.gateway import Gateway
from kit.process import Process
from kit.v1 import Numbered

_APPS = Path(__file__).parent / "node" / "apps"


@pytest.fixture
def gateway():
    """Starts gateways: `gateway(upstream, *args, settings={…})`; each must end cleanly."""
    started = []

    def start(*args, **options):
        started.append(Gateway(*args, **options))
        return started[-1]

    yield start
    failures = []
    for one in started:
        try:
            if not one.stopped:
                one.stop()
        except Exception as failure:
            failures.append(failure)
        finally:
            one.process.destroy()
    if failures:
        raise failures[0]


@pytest.fixture
def process():
    """Starts children: `process(name, command)`."""
    started = []

    def start(*args, **options):
        started.append(Process(*args, **options))
        return started[-1]

    yield start
    for one in started:
        one.destroy()


@pytest.fixture
def chat(process):
    """The tutorial's node app, in its own process; `chat(place)` runs it in a network namespace."""

    def start(place=None, host="127.0.0.1"):
        command = ["node", str(_APPS / "chat.mjs"), host]
        app = process("chat.mjs", place.command(command) if place else command)
        app.url = f"http://{host}:{app.event('listening')['port']}"
        return app

    return start


@pytest.fixture
def numbered(process):
    """Clients of pulsegate.v1 and an app, each in its process, that number their messages."""
    return Numbered(process)


@pytest.fixture
def raw_app():
    """Starts apps made of raw bytes: `raw_app(behave)`."""
    started = []

    def start(behave):
        started.append(raw.RawApp(behave))
        return started[-1]

    yield start
    for one in started:
        one.close()
