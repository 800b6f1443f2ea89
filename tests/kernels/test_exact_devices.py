"""Exact kernels and steps of KIP on eight simulated devices and on one."""

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
def test_matrices_are_bit_for_bit_identical(found, name):
    assert found[name] == 0


def test_kip_steps_match_those_of_one_device_up_to_rounding(found):
    assert found["kip"] < 1e-9
