"""Every device program compiled for TPUs and GPUs, without such a device.

``launch/compilers.sh`` installs the compilers; every_program.py lists the programs.
Some take minutes to compile: these need ``AUDIODD_TEST_COMPILES=all``.
"""

import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import every_program
import pytest

from audiodd_jax.config import Config, fields
from audiodd_jax.distillation import cost
from audiodd_jax.distillation.cost import Sizes, problem_of
from audiodd_jax.errors import UserError
from audiodd_jax.forecast import compilers, programs, targets
from audiodd_jax.forecast.workload import Workload
from audiodd_jax.runtime.devices import Grid

# Sources that only CPUs are for.
_CPU_ONLY = (
    "on_cpu",
    "winograd",
    "few_rows",
    "_products",
    "written_out",
    "kernel_gradient",
    "by_windows",
)
_CPU_POOLING = ("average_pool.<locals>.by_window", "_nine_slices")
# Programs that keep no state.
_STATELESS = ("validation", "scoring", "passes", "features")
# What a compiler takes ten seconds to two minutes for, each.
_LONG = {
    "v5e": (
        *("rfad of views", "rfad wide kernels", "kip", "frepo", "dc", "dsa", "dm"),
        *("convnet float32", "resnet18 float32", "resnet18 bfloat16"),
    ),
    "h100": (
        "rfad of views",
        "dsa",
        "frepo",
        "rfad tf32",
        "convnet float32",
        "resnet18 float32",
    ),
}
_ALL = os.environ.get("AUDIODD_TEST_COMPILES") == "all"
EVERYTHING = list(every_program.PROGRAMS)


@functools.cache
def accounts(target, names):
    """Returns the compiler's accounts of programs, by name."""
    found = targets.parse(target)
    request = {"target": target, "names": list(names)}
    rows = compilers.ask(found, request, "every_program", 3600.0)
    return {row["program"]: row for row in rows}


@pytest.fixture
def compiled(monkeypatch):
    """``compiled(target, names)``: ``accounts``, or a skip without the compiler.

    The folder of the compilers is that of the environment, the path has the tests.
    """
    monkeypatch.setenv("PYTHONPATH", str(Path(every_program.__file__).parent))
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # of tests on CPUs

    def ask(target, names):
        try:
            compilers.versions(targets.parse(target).chip.kind)
        except UserError as error:
            pytest.skip(str(error))
        return accounts(target, tuple(names))

    return ask


def check(name, found):
    """Checks what every accelerator's program must fulfil."""
    assert "error" not in found, (name, found)
    assert found["host"] == [], name
    assert ("f64" in found["kinds"]) == ("wide" in name), name
    for function in found["functions"]:
        assert function not in _CPU_POOLING, name
        assert not any(word in function for word in _CPU_ONLY), (name, function)
    is_stateless = any(word in name for word in _STATELESS)
    assert (found["aliased"] > 0) != is_stateless, name
    products = found["products"]
    assert "f32 default" not in products, (name, products)
    if "bfloat16" in name:
        assert products["bf16 default"] >= 2, (name, products)
    elif "tf32" in name:
        assert products["f32 high"] >= 2, (name, products)
    elif name not in ("rfad wide kernels", "validation", "convnet validation",
                      "convnet scoring", "passes"):  # fmt: skip
        assert "bf16 default" not in products, (name, products)


def test_spectrograms_compile_for_a_gpu(compiled):
    """The fastest to compile, for the default suite."""
    check("features", compiled("h100", ["features"])["features"])


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("target", ["v5e", "h100"])
def test_every_program_compiles_as_expected(compiled, target):
    left_out = () if _ALL else _LONG[target]
    names = [name for name in EVERYTHING if name not in left_out]
    found = compiled(target, names)
    assert list(found) == names
    for name, account in found.items():
        check(name, account)
        assert account["collectives"] == {}, name


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("target", ["v4", "v5p:2x2x1", "v6e:2x2", "a100", "h200:16"])
def test_every_chip_is_one_device(compiled, target):
    assert compiled(target, []) == {}


@pytest.mark.slow
@pytest.mark.optimized
def test_another_chip_compiles_the_main_programs(compiled):
    for name, account in compiled("v6e", ["rfad bfloat16", "convnet bfloat16"]).items():
        check(name, account)


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("target", ["v5e:2x4", "h100:8"])
def test_eight_chips_exchange_the_predicted_bytes(compiled, target):
    """Networks on eight chips: all-reduces of kernels and of the gradient alone."""
    found = compiled(target, ["rfad bfloat16"])["rfad bfloat16"]
    check("rfad bfloat16", found)
    assert list(found["collectives"]) == ["all-reduce"]
    _, size = found["collectives"]["all-reduce"]
    problem = problem_of(every_program.settings(), every_program.SIZES)
    predicted = cost.predict(problem, Grid(8, 1), every_program.PLAN, "tpu")
    assert size / found["steps"] == pytest.approx(predicted.exchanged_bytes, rel=0.02)


@pytest.mark.slow
@pytest.mark.optimized
def test_memory_is_as_predicted_and_fits(compiled):
    """The size is between those of a quick run and of the published experiments."""
    compiled("h100", ["features"])  # skips without the compiler
    target, sizes = targets.parse("h100"), Sizes(32, 64, 10, 100, 512, 2000, 600)
    changes = {"network.width": 64, "rfad.networks": 2, "loop.batch_size": 512}
    config = fields.replace(Config(), changes)
    problem = problem_of(config, sizes)
    plan = cost.choose_plan(problem, Grid(), "gpu", target.chip.memory)
    predicted = cost.predict(problem, Grid(), plan, "gpu")
    work = Workload(config, sizes, 300)
    (found,) = programs.accounts(target, "distill", work, ["step"])
    assert 0.8 < predicted.step_bytes / found["step_bytes"] < 1.25
    assert predicted.flops == pytest.approx(found["flops"] / found["steps"], rel=0.1)
    assert found["memory"] < target.chip.memory


@pytest.mark.nightly
def test_the_printed_dry_run_matches_the_command(tmp_path):
    """Apart from seconds, with the compiler version that the page names."""
    text = (Path(__file__).parents[2] / "launch/devices.md").read_text()
    (block,) = re.findall(r"```\n(bash launch/compilers.sh.*?)```", text, re.DOTALL)
    _, command, *printed = block.splitlines()
    try:
        version = compilers.versions("tpu")["libtpu"]
    except UserError as error:
        pytest.skip(str(error))
    if f"libtpu {version}" not in block:
        pytest.skip(f"libtpu {version}, not the version of launch/devices.md")
    run = [sys.executable, "-m", "audiodd_jax", *shlex.split(command)[1:]]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("JAX", "XLA"))}
    done = subprocess.run(
        run, cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    without = lambda lines: [re.sub(r"in \d+ s", "in a while", li) for li in lines]
    assert without(done.stdout.splitlines()) == without(printed)
