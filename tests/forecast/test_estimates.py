"""Rows that a dry run for an accelerator prints, with a fake compiler."""

import re

import jax
import pytest

from audiodd_jax.commands import main
from audiodd_jax.config import Config, fields
from audiodd_jax.distillation.cost import Sizes
from audiodd_jax.errors import UserError
from audiodd_jax.forecast import compilers, estimates, programs, targets
from audiodd_jax.forecast.workload import Workload
from audiodd_jax.runtime import devices

SIZES = Sizes(16, 16, 2, 8, 32, 64, 30)
# Ten steps: a TFLOP each, and as many bytes as take a millisecond on a v5e.
STEP = {
    "program": "step",
    "seconds": 12.4,
    "steps": 10,
    "precision": "bfloat16",
    "step_bytes": 2 * 10**9,
    "memory": 3 * 10**9,
    "flops": 10**13,
    "bytes": 8190 * 10**6,
    "collectives": {"all-reduce": [20, 4 * 10**7]},
}
FAILED = {"program": "scoring", "error": "the v5e compiler crashed (SIGSEGV)"}


@pytest.fixture
def compiler(monkeypatch):
    """``compiler(account, ...)`` replaces the compiler; returns its requests."""
    requests = []

    def answer(*accounts):
        def ask(target, request, module):
            requests.append(request)
            return list(accounts)

        monkeypatch.setattr(compilers, "ask", ask)
        monkeypatch.setattr(compilers, "versions", lambda kind: {"libtpu": "1.2"})
        return requests

    return answer


def settings(**changes):
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return fields.replace(Config(), dotted)


def test_the_rows_of_a_distillation(compiler):
    requests = compiler(STEP, FAILED)
    target = targets.parse("v5e:2x2")
    config = settings(network__width=8, rfad__networks=2, network__precision="bfloat16")
    work = Workload(config, SIZES, 10)
    rows = dict(estimates.distillation(work, target))
    assert rows["target"] == "4 x v5e of 17.2 GB, compiled by libtpu 1.2"
    assert rows["devices"] == (
        "4 x v5e: 2 share 2 networks, 2 the batch; at once the whole batch"
    )
    assert rows["programs"] == "step in 12 s; scoring failed"
    assert rows["no scoring"] == "the v5e compiler crashed (SIGSEGV)"
    assert re.match(r"2\.00 GB per step \(predicted [\d.]+ kB\)", rows["memory"])
    assert rows["memory"].endswith("3.00 GB with its data, of 17.2 GB per chip")
    assert rows["collectives"].startswith("2 all-reduce of 4.00 MB (predicted 1")
    assert rows["arithmetic"] == (
        "1,000.0 GFLOP per step and chip: 5.08 ms at 197.0 TFLOP/s (bfloat16)"
    )
    assert rows["bytes moved"] == "819.00 MB per step and chip: 1.00 ms at 819 GB/s"
    assert rows["lower bound"] == "5.08 ms per step, by arithmetic"
    (request,) = requests
    assert (request["target"], request["command"]) == ("v5e:2x2", "distill")
    assert Workload.from_json(request["work"]) == work


def test_programs_that_do_not_fit_are_reported(compiler):
    compiler({**STEP, "memory": 20 * 10**9})
    target = targets.parse("v5e")
    rows = dict(estimates.distillation(Workload(settings(), SIZES, 10), target))
    assert rows["memory"].endswith("of 17.2 GB per chip; that is MORE than available")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("distill --dry_run --target=v5x", "unknown target 'v5x'; did you mean v5"),
        ("distill --target=v5e", "--target compiles and does not run: add --dry_run"),
        ("train --dry_run", "add --target, as in --target=v5e"),
        ("active --dry_run --target=v5e:9", "v5e has no topology '9'"),
        ("distill --dry_run --target=h100 --method=herding", "there is no step"),
    ],
)
def test_bad_targets_are_a_sentence(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        main.main(arguments.split())


def test_commands_request_their_programs(compiler, capsys):
    requests = compiler(STEP)
    quick = ["--dataset=tones", "--preset=quick", "--dry_run", "--target=h100"]
    main.main(["train", *quick, "--samples_per_class=3"])
    main.main(["active", *quick, "--budgets=4/class"])
    main.main(["distill", *quick])
    commands = [request["command"] for request in requests]
    assert commands == ["train", "active", "distill"]
    train, active, _ = (Workload.from_json(request["work"]) for request in requests)
    assert (train.learns_from, train.pool) == (30, 0)
    assert (active.learns_from, active.pool) == (40, active.sizes.train)
    assert capsys.readouterr().out.count("lower bound") == 3


def test_forecast_programs_match_those_that_run():
    """Lowered for this machine's device, from shapes alone."""
    changes = {"network.width": 4, "network.depth": 1, "rfad.networks": 1}
    more = {"model.width": 4, "model.depth": 1, "model.dropout": 0.2}
    config = fields.replace(Config(), {**changes, **more, "training.seeds": 1})
    work = Workload(config, SIZES, 10, 20, 40)
    chips = devices.make_mesh().devices.ravel()[:1].tolist()
    for command, names in {
        "distill": ["step", "validation", "scoring"],
        "active": ["step", "validation", "scoring", "acquisition"],
        "evaluate": ["scoring"],
    }.items():
        found = programs.of_command(command, work, chips)
        assert list(found) == names
        for name, make in found.items():
            text = make().lower().as_text()
            assert "func.func public @main" in text, (command, name)


def test_views_count_as_spectrograms():
    """The kernels are of the views, which a teacher in the state labels."""
    config = settings(
        network__width=4,
        network__depth=1,
        rfad__networks=1,
        rfad__views=3,
        teacher__networks=2,
        coreset__learn_labels=False,
    )
    work = Workload(config, SIZES, 10)
    mesh = devices.make_mesh(1, jax.local_devices()[:1])
    rows = dict(estimates.local(work, mesh))
    assert rows["coreset"].startswith("8 spectrograms")
    assert rows["kernels"] == "32 x 24 and 24 x 24, float32"
    state = programs.distillation_step(work, mesh, None).arguments[0]
    assert {len(leaf) for leaf in jax.tree.leaves(state.teacher)} == {2}
