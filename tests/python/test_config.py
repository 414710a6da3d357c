"""Configurations that can't be used: exit status 3, and a message that says what and where."""

import subprocess

import pytest

from kit.gateway import binary
from kit.process import environment

INVALID = 3


def _run(config, *args):
    done = subprocess.run(
        [binary(), "run", "--config", str(config), "--upstream", "http://127.0.0.1:9", *args],
        capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL, env=environment(),
    )
    return done.returncode, done.stderr


def test_a_directory(tmp_path):
    status, told = _run(tmp_path)
    assert status == INVALID
    assert str(tmp_path) in told and "directory" in told.lower()


def test_a_file_that_is_not_there(tmp_path):
    status, told = _run(tmp_path / "missing.toml")
    assert status == INVALID
    assert "missing.toml" in told


def test_not_utf_8(tmp_path):
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe\x00")
    status, told = _run(tmp_path / "bad.toml")
    assert status == INVALID
    assert "bad.toml" in told


def test_all_faults_at_once_with_their_lines(tmp_path):
    (tmp_path / "bad.toml").write_text('[liveness]\nping_intervall = "1s"\n\n[limits]\nsessions_max = "many"\n')
    status, told = _run(tmp_path / "bad.toml")
    assert status == INVALID
    assert "ping_intervall" in told and "ping_interval" in told.replace("ping_intervall", "")
    assert "sessions_max" in told
    assert "2" in told and "5" in told, "line numbers"


@pytest.mark.parametrize("setting", ["liveness.ping_interval=0s", "liveness.ping_interval=soon", "no.such=1"])
def test_a_bad_setting(tmp_path, setting):
    (tmp_path / "good.toml").write_text("")
    status, told = _run(tmp_path / "good.toml", "--set", setting)
    assert status in (2, INVALID)
    assert setting.partition("=")[0] in told
