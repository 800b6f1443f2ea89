"""Eight simulated devices compute the same as one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[1] / "helpers" / "several_devices.py"


@pytest.fixture(scope="module")
def found():
    """Returns the script's findings in each precision."""
    run = lambda dtype: subprocess.Popen(
        [sys.executable, SCRIPT, dtype], stdout=subprocess.PIPE, text=True
    )
    started = {dtype: run(dtype) for dtype in ("float32", "float64")}
    outputs = {dtype: process.communicate()[0] for dtype, process in started.items()}
    return {dtype: json.loads(text) for dtype, text in outputs.items()}


def test_the_coreset_differs_from_one_device_only_by_rounding(found):
    for name, (highest, _) in found["float64"]["distill 3"].items():
        assert highest < 1e-9, name


@pytest.mark.parametrize("networks", [3, 5])
def test_the_coreset_matches_that_of_one_device(found, networks):
    for name, (_, norm) in found["float32"][f"distill {networks}"].items():
        assert norm < 1e-5, name


def test_a_step_exchanges_the_predicted_bytes(found):
    for name, (compiled, predicted) in found["float32"]["exchange"].items():
        assert compiled == pytest.approx(predicted, rel=0.02), name


def test_scores_match_those_of_one_device(found):
    # The solve amplifies rounding that depends on the order of sums.
    assert max(found["float32"]["scored"]) < 1e-4


def test_trained_networks_match_those_of_one_device(found):
    # Two seeds, and each batch divided by four.
    assert found["float32"]["trained"] < 1e-5


def test_shared_classes_are_matched_as_on_one_device(found):
    assert max(found["float32"]["matched"]) < 1e-5


def test_networks_of_a_pool_regress_as_on_one_device(found):
    # AdaBelief's first steps have one length, however small the gradient: where it is
    # all rounding, so is the step. In float64 there are no such places.
    assert found["float32"]["frepo"] < 1e-6
    assert found["float64"]["frepo"] < 1e-12


def test_labelled_views_are_those_of_one_device(found):
    assert found["float64"]["views"] < 1e-9
