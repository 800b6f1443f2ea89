import jax
import pytest

from audiodd_jax.config import Config, fields
from audiodd_jax.distillation import cost
from audiodd_jax.distillation.cost import Sizes, problem_of
from audiodd_jax.forecast import estimates, programs
from audiodd_jax.forecast.workload import Workload
from audiodd_jax.kernels.random_kernels import Plan
from audiodd_jax.networks import random_conv
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.devices import Grid

GIGABYTE = 10**9
# The published experiments': 10 classes, 50 spectrograms each.
SOURCE = Sizes(64, 128, 10, 500, 1280, 7000, 1500)


def settings(**changes):
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    return fields.replace(Config(), dotted)


@pytest.fixture
def memory(monkeypatch):
    """``memory(size)`` sets the bytes of memory of the device."""

    def set_memory(size):
        for module in (cost, estimates):
            monkeypatch.setattr(module, "memory_of", lambda _: size)

    return set_memory


@pytest.mark.parametrize("readout", ["flatten", "time_mean", "dense"])
def test_parameters_are_those_of_a_network(readout):
    config = settings(network__width=6, network__readout=readout, network__depth=2)
    config.network.output_dim = 12
    sizes = Sizes(9, 13, 3, 6, 20, 20, 0)
    params = random_conv.init(jax.random.key(0), (9, 13), config.network)
    found = cost.predict(problem_of(config, sizes), Grid(), Plan())
    assert found.parameters == sum(p.size for p in jax.tree.leaves(params))
    x = jax.numpy.zeros((1, 9, 13, 1))
    assert found.features == random_conv.apply(params, x, config.network).shape[1]


def test_arithmetic_by_hand():
    config = settings(network__depth=1, network__width=4, rfad__networks=3)
    sizes = Sizes(4, 6, 2, 2, 5, 5, 0)
    # A clip: 2 * 9 * 4 a position; d = 4 * 2 * 3.
    convolutions = 3 * (5 + 3 * 2) * (2 * 9 * 4 * 24)
    products = 3 * 2 * 24 * 2 * (2 * 5 + 3 * 2)
    solve = 2**3 + 6 * 2 * 2 * (5 + 2)
    found = cost.predict(problem_of(config, sizes), Grid(), Plan())
    assert found.flops == convolutions + products + solve


def test_the_published_size_fits_sixteen_gigabytes(memory):
    memory(16 * GIGABYTE)
    for precision in ("float32", "bfloat16"):
        problem = problem_of(settings(network__precision=precision), SOURCE)
        plan = cost.plan_for_device(problem, Grid())
        for platform in ("cpu", "gpu"):
            found = cost.predict(problem, Grid(), plan, platform)
            assert found.peak_bytes() < 16 * GIGABYTE
        assert plan.keeps == "features"


def test_less_memory_means_smaller_chunks_then_recomputed_features(memory):
    found = []
    for size in (400, 60, 16, 4, 2.5, 1):
        memory(int(size * GIGABYTE))
        found.append(cost.plan_for_device(problem_of(settings(), SOURCE), Grid()))
    assert found[0] == Plan(0, 0, "features")
    assert found[-1].keeps == "nothing"
    assert found[-1].chunk == 10
    at_once = [plan.chunk or SOURCE.b for plan in found if plan.keeps == "features"]
    assert at_once == sorted(at_once, reverse=True)
    assert len(set(at_once)) > 1


def test_a_requested_chunk_is_used(memory):
    memory(GIGABYTE)
    problem = problem_of(settings(network__chunk=7), SOURCE)
    plan = cost.plan_for_device(problem, Grid())
    assert plan == Plan(7, 7, "nothing")


@pytest.mark.parametrize("keeps", ["features", "nothing"])
def test_memory_grows_with_networks_only_by_their_features(keeps):
    sizes = Sizes(16, 16, 2, 8, 256, 256, 0)
    compiled = {}
    for networks in (2, 6):
        config = settings(network__width=16, rfad__networks=networks, network__depth=2)
        plan = Plan(64, 0, keeps)
        mesh = devices.make_mesh()
        work = Workload(config, sizes, 0)
        compiled[networks] = programs.compiled_bytes(work, mesh, plan)
    features = 4 * 256 * (16 * 4 * 4) * 4 if keeps == "features" else 0
    assert compiled[6] - compiled[2] <= 1.05 * features + 4096


def test_the_forecast_covers_every_quantity(memory, monkeypatch):
    monkeypatch.setattr(programs, "compiled_bytes", lambda *_: 10**9)
    memory(4 * GIGABYTE)
    sizes = Sizes(16, 16, 2, 8, 32, 64, 10)
    work = Workload(settings(network__width=8, rfad__networks=2), sizes, 0)
    rows = dict(estimates.local(work, devices.make_mesh(2)))
    assert rows["coreset"] == "8 spectrograms of 16 x 16, 2 classes"
    assert rows["batch"] == "32 of 64 training clips"
    assert rows["kernels"] == "32 x 8 and 8 x 8, float32"
    assert rows["devices"].endswith("1 share 2 networks, 1 the batch")
    assert rows["at once"] == "the whole batch"
    assert rows["memory"].startswith("1.00 GB per step, 1.7")
    assert rows["communication"].startswith("0.00 MB")
    memory(1000)
    rows = dict(estimates.local(work, devices.make_mesh(2)))
    assert "MORE than available" in rows["memory"]


def test_frepo_takes_the_memory_of_wider_random_networks():
    """Its networks store more, and its training steps are computed in chunks too."""
    config = settings(
        method="frepo", frepo__width=16, frepo__depth=2, frepo__norm="instance"
    )
    sizes, plan = Sizes(32, 32, 4, 64, 128, 128, 0), Plan(16, 8)
    predicted = cost.predict(problem_of(config, sizes), Grid(), plan).step_bytes
    work = Workload(config, sizes, 0)
    compiled = programs.compiled_bytes(work, devices.make_mesh(), plan)
    assert 0.4 * predicted < compiled < 1.1 * predicted
