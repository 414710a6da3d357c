"""Fixtures of the tests between network namespaces."""

import os

import pytest

from world import World


@pytest.fixture
def world(process):
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root; tests/run.sh says so")
    one = World(process)
    yield one
    one.close()
