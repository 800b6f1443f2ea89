"""The devices of each run, the record of a sweep, and refusals."""

import json
import signal

import pytest

from audiodd_jax.errors import UserError
from audiodd_jax.sweep import local, status
from audiodd_jax.sweep.plan import Planned

PLANS = [Planned("a", "distill", ("--seed=0",)), Planned("b", "distill", ("--seed=1",))]


def test_a_cpu_has_one_run_at_a_time_by_default():
    assert local.slots("cpu", 1, 0, 1) == [{}]
    assert local.slots("cpu", 1, 3, 1) == [{}, {}, {}]


def test_each_gpu_gets_a_run():
    found = local.slots("gpu", 4, 0, 1)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in found] == ["0", "1", "2", "3"]
    found = local.slots("gpu", 5, 0, 2)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in found] == ["0,1", "2,3"]
    assert len(local.slots("gpu", 4, 2, 1)) == 2
    # More devices than the machine has: one run, which sees them all.
    assert local.slots("gpu", 1, 0, 2) == [{}]


def test_each_tpu_chip_gets_a_process_of_its_own():
    found = local.slots("tpu", 4, 0, 1)
    assert [slot["TPU_VISIBLE_CHIPS"] for slot in found] == ["0", "1", "2", "3"]
    assert found[0]["TPU_PROCESS_BOUNDS"] == "1,1,1"


def test_states_are_read_from_the_record(tmp_path):
    tell = lambda run, event, **more: status.record(tmp_path, run, event, **more)
    tell("a", "queued")
    tell("a", "started", host="one", flags=["--seed=0"])
    tell("a", "started", host="two", flags=["--seed=0"])
    tell("other", "started", host="two", flags=[])
    with (tmp_path / status.SWEEP_RECORD).open("a") as file:
        file.write('{"run": "a", "ev\n')  # a line cut short
    a, b = status.read(PLANS, tmp_path)
    assert (a.what, a.attempts, a.host) == ("running", 2, "two")
    assert a.tries == 2
    assert (b.what, b.attempts) == ("waiting", 0)
    tell("a", "failed", reason="no memory", seconds=3.0)
    (a, _) = status.read(PLANS, tmp_path)
    assert (a.what, a.reason, a.seconds) == ("failed", "no memory", 3.0)
    tell("a", "queued")
    (a, _) = status.read(PLANS, tmp_path)
    assert (a.attempts, a.tries) == (2, 0)


def test_finished_runs_are_kept_and_others_queued(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "result.json").write_text(json.dumps({"test_accuracy": 0.5}))
    assert status.queue(PLANS, tmp_path) == [PLANS[1]]
    made = status.table(status.read(PLANS, tmp_path), tmp_path)
    assert [row[1] for row in made.rows] == ["finished", "waiting"]
    assert made.rows[0][made.columns.index("test accuracy (%)")] == "50.0"


def test_a_run_with_other_flags_is_refused(tmp_path):
    status.record(tmp_path, "a", "started", host="h", flags=["--seed=7"])
    with pytest.raises(UserError, match=r"run a was started with --seed=7 and now has"):
        status.queue(PLANS, tmp_path)


def test_a_folder_has_one_sweep(tmp_path):
    again = pytest.raises(UserError, match="another sweep is running")
    with status.held(tmp_path / "s"), again, status.held(tmp_path / "s"):
        pass
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds a run"), status.held(tmp_path / "run"):
        pass


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "no Ray cluster at 127.0.0.1:1: "),
        ("nowhere", "--ray must be auto, HOST:PORT or local, not 'nowhere'"),
    ],
)
def test_an_unreachable_cluster_is_reported(tmp_path, address, message):
    pytest.importorskip("ray")
    from audiodd_jax.sweep import on_ray

    sweep = status.Sweep(tmp_path, tmp_path, 0)
    with pytest.raises(UserError) as error:
        on_ray.run([], sweep, address, on_ray.Resources(), print, lambda: 0)
    assert str(error.value).startswith(message)


def test_resources_that_a_cluster_lacks_are_refused():
    from audiodd_jax.sweep import on_ray

    with pytest.raises(UserError, match="needs 1 GPU, but the cluster has 0"):
        on_ray._check_resources({"CPU": 4.0}, on_ray.Resources(1, 1, 0))


def test_runs_get_only_the_visible_devices(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    found = local.slots("gpu", 2, 0, 1)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in found] == ["2", "3"]


def test_a_run_stopped_by_a_signal_is_cut_and_not_failed(tmp_path):
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        code = 128 + getattr(signal, name)
        assert local._ended(code, tmp_path / "log", 0)[0] == "cut"


@pytest.mark.parametrize("retries", [0, 2])
def test_a_killed_run_is_retried_in_its_turn(tmp_path, monkeypatch, retries):
    monkeypatch.setattr(
        local.signals, "child_command", lambda _: ["bash", "-c", "kill -9 $$"]
    )
    sweep = status.Sweep(tmp_path, tmp_path, retries)
    local.run(PLANS, sweep, [{}], lambda: None, lambda: 0)
    states = status.read(PLANS, tmp_path)
    assert [state.what for state in states] == ["killed", "killed"]
    assert [state.attempts for state in states] == [1 + retries] * 2


def test_a_fault_of_the_sweep_stops_its_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(local.signals, "child_command", lambda _: ["sleep", "60"])
    sweep = status.Sweep(tmp_path, tmp_path, 0)

    def update():
        if (tmp_path / status.LOGS).exists():
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        local.run(PLANS, sweep, [{}], update, lambda: 0)
    assert status.read(PLANS, tmp_path)[0].what == "killed"
    assert status.read(PLANS, tmp_path)[1].attempts == 0


def test_a_fault_of_one_run_ends_the_sweep(tmp_path):
    (tmp_path / "logs").write_text("")  # in the place of the folder
    sweep = status.Sweep(tmp_path, tmp_path, 0)
    with pytest.raises(FileExistsError):
        local.run(PLANS, sweep, [{}], lambda: None, lambda: 0)
