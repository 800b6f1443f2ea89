"""Networks, methods and acquisition functions of a package that is not ours."""

import json
import sys
import textwrap
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
from command_line import FEATURES, FEW, NETWORK, TINY, fails

import audiodd_jax
from audiodd_jax.commands import main
from audiodd_jax.config import Config, extensions, fields
from audiodd_jax.distillation import registry
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.distillation.method import Context
from audiodd_jax.errors import UserError
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.forecast import programs
from audiodd_jax.forecast.workload import Workload

PACKAGE = '''
    from typing import Any, NamedTuple

    import flax.linen as nn
    import jax.numpy as jnp
    from flax import nnx

    from audiodd_jax.active_learning.acquisition import mean_log_probs
    from audiodd_jax.distillation.method import Method


    class State(NamedTuple):
        step: Any
        arrays: Any


    def mean(config, context):
        """Moves every sample towards the mean of its batch."""

        def init(key, start):
            return State(jnp.int32(0), start)

        def step(state, batch):
            error = state.arrays.images - batch.images.mean(0)
            images = state.arrays.images - 0.2 * error
            arrays = state.arrays._replace(images=images)
            return State(state.step + 1, arrays), {"loss": (error**2).mean()}

        return Method(init, step, lambda state: state.arrays)


    def mean_of_three(config, sizes, stats):
        """The same, as version 0.2 called methods."""
        assert sizes.c == 10 and len(stats.mean) == sizes.f
        return mean(config, None)


    def least_confident(log_probs):
        return 1 - jnp.exp(mean_log_probs(log_probs)).max(-1)


    def one_score(log_probs):
        return jnp.float32(1)


    class Linen(nn.Module):
        num_classes: int

        @nn.compact
        def __call__(self, x, *, train, drop=False):
            norm = nn.BatchNorm(use_running_average=not train)
            x = nn.relu(norm(nn.Conv(8, (3, 3))(x)))
            x = nn.Dropout(0.3, deterministic=not (train or drop))(x.mean(2))
            return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


    class Nnx(nnx.Module):
        def __init__(self, num_classes, *, rngs):
            self.conv = nnx.Conv(1, 8, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.dropout = nnx.Dropout(0.1, rngs=rngs)
            self.head = nnx.Linear(8 * 16, num_classes, rngs=rngs)

        def __call__(self, x, *, train):
            x = self.norm(self.conv(x), use_running_average=not train)
            x = self.dropout(nnx.relu(x).mean(2), deterministic=not train)
            return self.head(x.reshape(len(x), -1))


    class NoTrain(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x


    class Wide(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return nn.Dense(3)(x.reshape(len(x), -1))


    def no_train(num_classes):
        return NoTrain()


    def wide(num_classes):
        return Wide()


    def nothing(num_classes):
        return num_classes


    def broken(num_classes):
        raise KeyError("width")
'''
POINTS = """
    [audiodd.methods]
    mean = third_party:mean
    mean_of_three = third_party:mean_of_three
    lost = third_party:gone

    [audiodd.acquisitions]
    least_confident = third_party:least_confident
    one_score = third_party:one_score
"""


@pytest.fixture(autouse=True)
def third_party(tmp_path_factory, monkeypatch):
    """The package as pip installs it: a module, and its metadata beside it."""
    place = tmp_path_factory.getbasetemp() / "third_party"
    info = place / "third_party-1.0.dist-info"
    if not place.exists():
        info.mkdir(parents=True)
        (place / "third_party.py").write_text(textwrap.dedent(PACKAGE))
        (info / "METADATA").write_text("Name: third_party\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(textwrap.dedent(POINTS))
    monkeypatch.syspath_prepend(str(place))


def test_a_method_runs_resumes_and_reports_like_the_others(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # Commands without a folder of their own make one here.
    run = tmp_path / "run"
    options = ["--dataset=tones", "--samples_per_class=2", *TINY]
    main.main(["distill", *options, "--method=mean", f"--workdir={run}"])
    result = json.loads((run / "result.json").read_text())
    assert (result["method"], result["steps"]) == ("mean", 8)
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0]
    main.main(["distill", *options, "--method=mean", f"--workdir={run}"])
    assert "finished already" in capsys.readouterr().out
    main.main(["report", str(run), f"--out={tmp_path / 'out'}", "--galleries=0"])
    assert "mean" in (tmp_path / "out" / "tables" / "coresets.csv").read_text()
    told = fails(capsys, "distill", *options, "--method=lost")
    assert told.startswith("third_party:gone cannot be imported")
    told = fails(capsys, "distill", *options, "--method=other")
    assert "or one that an installed package adds to audiodd.methods" in told


def test_a_method_of_three_arguments_runs_and_warns():
    with pytest.warns(FutureWarning, match=r"make\(config, context\)"):
        make = registry.get_method("mean_of_three")
    sizes = Sizes(8, 8, 10, 20, 16, 40, 0)
    stats = Normalization(np.zeros(8, np.float32), np.ones(8, np.float32))
    method = make(Config(), Context(sizes, stats))
    assert method.init(jax.random.key(0), None).step == 0


def test_the_programs_of_a_method_are_found_for_a_target():
    changes = {"method": "mean", "loop.steps": 4, "evaluation.networks": 1}
    config = fields.replace(Config(), changes)
    work = Workload(config, Sizes(16, 16, 10, 20, 8, 40, 20), 10)
    chips = jax.devices()[:1]
    found = programs.of_command("distill", work, chips)
    program = found["step"]()
    assert program.steps == 4
    assert "func.func public @main" in program.lower().as_text()


@pytest.mark.slow
def test_an_acquisition_function_matches_the_built_in_one_of_its_formula(
    tmp_path, capsys
):
    labelled = []
    for name in ("least_confident", "variation_ratios"):
        run = tmp_path / name
        main.main(
            [
                *("active", "--dataset=tones", *FEATURES, *NETWORK, *FEW),
                *(f"--acquisition={name}", "--model=third_party:Linen"),
                f"--workdir={run}",
            ]
        )
        labelled.append(np.load(run / "labelled.npy"))
    np.testing.assert_array_equal(*labelled)
    bad = ["--acquisition=one_score", f"--workdir={tmp_path / 'bad'}"]
    command = ["active", "--dataset=tones", *FEATURES, *NETWORK, *FEW, *bad]
    told = fails(capsys, *command, "--model=third_party:Linen")
    assert "one_score must return a score per clip" in told
    command[-1] = f"--workdir={tmp_path / 'other'}"
    told = fails(capsys, *command, "--model=third_party:Nnx")
    assert "a call method that takes drop" in told


@pytest.mark.parametrize("name", ["Nnx", pytest.param("Linen", marks=pytest.mark.slow)])
def test_a_network_learns_and_scores_alongside_built_in_ones(name, tmp_path, capsys):
    path, run = f"third_party:{name}", tmp_path / "run"
    steps = ["--steps=60", "--num_seeds=1"]
    train = ["train", "--dataset=tones", *FEATURES, f"--model={path}", *steps]
    main.main([*train, f"--workdir={run}"])
    result = json.loads((run / "result.json").read_text())
    assert result["model"] == path
    assert result["test_accuracy"] > 0.25
    networks = audiodd_jax.load_networks(run / "networks.npz")
    sizes = [x.size for x in _leaves(networks.networks.variables.params)]
    assert result["parameters"] == sum(sizes)
    probabilities = networks.predict(np.zeros((3, 16, 16, 1), np.float32))
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert path in capsys.readouterr().out
    main.main(["report", str(run), f"--out={tmp_path / 'out'}"])
    assert path in (tmp_path / "out" / "tables" / "networks.csv").read_text()


def _leaves(tree):
    return jax.tree.leaves(tree)


@pytest.mark.slow
def test_evaluate_has_a_row_for_it(tmp_path, capsys):
    run = tmp_path / "run"
    options = ["--dataset=tones", "--samples_per_class=2", *TINY]
    main.main(["distill", *options, "--method=random", f"--workdir={run}"])
    command = ["evaluate", f"--workdir={run}", "--num_seeds=1", "--steps=5"]
    main.main([*command, "--protocol=linear,third_party:Linen"])
    assert "third_party:Linen" in capsys.readouterr().out
    assert (run / "evaluation" / "third_party-Linen-coreset.png").exists()
    told = fails(capsys, *command, "--protocol=third_party:gone")
    assert told.startswith("third_party:gone cannot be imported")


def test_python_takes_a_module_with_its_own_settings(tmp_path, monkeypatch):
    class Small(nn.Module):
        num_classes: int
        width: int

        @nn.compact
        def __call__(self, x, *, train):
            x = nn.relu(nn.Dense(self.width)(x.reshape(len(x), -1)))
            return nn.Dense(self.num_classes)(x)

    config = audiodd_jax.for_dataset(
        "tones", features__n_mels=16, features__frames=16, features__top_db=60.0
    )
    config = audiodd_jax.for_model(config, "convnet", training__steps=5)
    few = audiodd_jax.Subset("random", per_class=2)
    run = audiodd_jax.train(config, tmp_path / "run", few, model=Small(10, width=7))
    assert run.result["parameters"] == 256 * 7 + 7 + 7 * 10 + 10
    file = tmp_path / "run" / "networks.npz"
    images = np.zeros((1, 16, 16, 1), np.float32)
    networks = audiodd_jax.load_networks(file, model=Small(10, width=7))
    assert networks.predict(images).shape == (1, 10)
    with pytest.raises(UserError, match="cannot be imported"):
        audiodd_jax.load_networks(file).predict(images)
    with pytest.raises(UserError, match=r"width = 7 .* and is now .*width = 8"):
        audiodd_jax.train(config, tmp_path / "run", few, model=Small(10, width=8))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_such_package:make", "no_such_package:make cannot be imported"),
        ("third_party:gone", "has no attribute 'gone'"),
        ("third_party:no_train", "NoTrain must be called as module(x, train=...)"),
        ("third_party:nothing", "returns int, not a linen module"),
        ("third_party:broken", "cannot create a network of 10 classes: KeyError"),
        ("third_party:wide", r"Wide must return logits of shape (1, 10), not (1, 3)"),
    ],
)
def test_unusable_networks_are_refused(name, told, tmp_path, capsys):
    command = ["train", "--dataset=tones", *FEATURES, *NETWORK, f"--model={name}"]
    assert told in fails(capsys, *command, f"--workdir={tmp_path / 'run'}")


def test_the_example_is_found_in_the_working_directory(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2] / "experiments")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    make = extensions.from_path("own_network:make")
    assert make(4).num_classes == 4
    config = fields.replace(Config(), {"model.name": "own_network:make"})
    fields.validate(config)
