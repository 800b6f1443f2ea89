"""Which devices a run sees, and what the record of a sweep says."""

import json

import pytest

from audiodd_jax.errors import UserError
from audiodd_jax.sweep import local, run_process, start, status
from audiodd_jax.sweep.plan import Planned

PLANS = [Planned("a", "distill", ("--seed=0",)), Planned("b", "distill", ("--seed=1",))]


def test_a_cpu_has_one_run_at_a_time_unless_told():
    assert local.slots("cpu", 1, 0, 1) == [{}]
    assert local.slots("cpu", 1, 3, 1) == [{}, {}, {}]


def test_each_gpu_has_a_run():
    found = local.slots("gpu", 4, 0, 1)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in found] == ["0", "1", "2", "3"]
    found = local.slots("gpu", 5, 0, 2)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in found] == ["0,1", "2,3"]
    assert len(local.slots("gpu", 4, 2, 1)) == 2
    # More devices than there are: one run, which sees them all.
    assert local.slots("gpu", 1, 0, 2) == [{}]


def test_a_tpu_process_knows_that_it_is_alone():
    found = local.slots("tpu", 4, 0, 1)
    assert [slot["TPU_VISIBLE_CHIPS"] for slot in found] == ["0", "1", "2", "3"]
    assert found[0]["TPU_PROCESS_BOUNDS"] == "1,1,1"


def test_states_are_read_from_the_record(tmp_path):
    tell = lambda run, event, **more: run_process.record(tmp_path, run, event, **more)
    tell("a", "queued")
    tell("a", "started", host="one", flags=["--seed=0"])
    tell("a", "started", host="two", flags=["--seed=0"])
    tell("other", "started", host="two", flags=[])
    with (tmp_path / run_process.RECORD).open("a") as file:
        file.write('{"run": "a", "ev\n')  # a line cut short
    a, b = status.read(PLANS, tmp_path)
    assert (a.what, a.attempts, a.host) == ("running", 2, "two")
    assert (b.what, b.attempts) == ("waiting", 0)
    tell("a", "failed", reason="no memory", seconds=3.0)
    (a, _) = status.read(PLANS, tmp_path)
    assert (a.what, a.reason, a.seconds) == ("failed", "no memory", 3.0)


def test_finished_runs_are_left_and_others_wait(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text(json.dumps({"test_accuracy": 0.5}))
    assert start.queue(PLANS, tmp_path) == [PLANS[1]]
    made = status.table(status.read(PLANS, tmp_path), tmp_path)
    assert [row[1] for row in made.rows] == ["finished", "waiting"]
    assert made.rows[0][made.columns.index("test accuracy (%)")] == "50.0"


def test_a_run_of_other_flags_is_refused(tmp_path):
    run_process.record(tmp_path, "a", "started", host="h", flags=["--seed=7"])
    with pytest.raises(UserError, match=r"run a was started with --seed=7 and now has"):
        start.queue(PLANS, tmp_path)


def test_one_sweep_a_folder(tmp_path):
    again = pytest.raises(UserError, match="another sweep is running")
    with start.held(tmp_path / "s"), again, start.held(tmp_path / "s"):
        pass
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds a run"), start.held(tmp_path / "run"):
        pass


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:1", "no Ray cluster at 127.0.0.1:1: "),
        ("nowhere", "--ray is auto, HOST:PORT or local, not 'nowhere'"),
    ],
)
def test_a_cluster_that_is_not_there_is_told(tmp_path, address, told):
    pytest.importorskip("ray")
    from audiodd_jax.sweep import on_ray

    sweep = run_process.Sweep(tmp_path, tmp_path, 0)
    with pytest.raises(UserError) as error:
        on_ray.run([], sweep, address, on_ray.Resources(), print, lambda: 0)
    assert str(error.value).startswith(told)


def test_what_a_cluster_never_has_is_refused():
    from audiodd_jax.sweep import on_ray

    with pytest.raises(UserError, match="needs 1 GPU, but the cluster has 0"):
        on_ray._check_resources({"CPU": 4.0}, on_ray.Resources(1, 1, 0))
