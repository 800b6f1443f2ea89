"""Exact kernels, and steps of KIP, on eight simulated devices are those of one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.optimized]

SCRIPT = Path(__file__).parents[1] / "helpers" / "exact_devices.py"


@pytest.fixture(scope="module")
def found():
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["gram", "matrix"])
def test_matrices_have_the_same_bits(found, name):
    assert found[name] == 0


def test_steps_of_kip_are_those_of_one_device_but_for_rounding(found):
    assert found["kip"] < 1e-9
