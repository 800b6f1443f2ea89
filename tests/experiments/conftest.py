"""Imports the scripts of ``experiments/``, and builds tables of known results."""

import functools
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags

MODULES = (
    "table",
    "outcomes",
    "table_report",
    "table_plan",
    "contenders",
    "published_results",
    "budget_table",
)
DATA = SimpleNamespace(
    num_train=1600,
    num_classes=50,
    train_bytes=160_000_000,
    image_shape=(32, 64),
    name="esc50",
    train=SimpleNamespace(labels=np.zeros(1440)),
)


@pytest.fixture(scope="session")
def folder():
    """The folder of the scripts."""
    return Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="module")
def script(folder):
    """``table.py``."""
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("table")
    finally:
        sys.path.remove(str(folder))
        for name in MODULES:
            for flag in list(flags.FLAGS.flags_by_module_dict().get(name, ())):
                delattr(flags.FLAGS, flag.name)
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def outcome(script):
    return importlib.import_module("contenders").Outcome


@pytest.fixture(scope="module")
def rows_of(script):
    return lambda found: list(script.table_report.rows(found, script.request()))


@pytest.fixture
def found_of(script, outcome, tmp_path):
    """Builds the outcomes of a command line from known results."""

    def make(*arguments, results=(), reasons=(), hours=0.0):
        for flag in flags.FLAGS.flags_by_module_dict()["table"]:
            flag.unparse()
        flags.FLAGS(["table", f"--workdir={tmp_path}", *arguments])
        runs = script.contenders()
        runs.data = DATA
        asked = script.request()
        write = functools.partial(script.table_report.write, request=asked)
        found = script.Outcomes(runs, hours, write)
        found.results.update(
            {key: outcome(*value) for key, value in dict(results).items()}
        )
        found.reasons.update(reasons)
        return found

    return make


@pytest.fixture
def known():
    """Results of two seeds, by key."""
    return {
        ("everything", 0): ({1440: 0.7}, 10.0),
        ("coreset", "rfad", 5, "teacher", 0): ({250: 0.4}, 10.0, 2_000_000),
        ("coreset", "rfad", 5, "teacher", 1): ({250: 0.5}, 20.0, 2_000_000),
        ("choice", "bald", 0): ({960: 0.6, 250: 0.3}, 30.0),
        ("choice", "random", 0): ({960: 0.4, 250: 0.2}, 30.0),
        ("bought", "bald", "20%", 2, 0): ({100: 0.35}, 30.0, 500_000),
    }
