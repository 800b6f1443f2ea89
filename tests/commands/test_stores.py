"""Commands on s3:// and gs://, each on a machine with an empty disk."""

import json

import numpy as np
import pytest
import stores
from command_line import TINY, TINY_SELECTION

import audiodd_jax
from audiodd_jax.commands import main
from audiodd_jax.config import DataConfig, FeaturesConfig, user_paths
from audiodd_jax.features import cache
from audiodd_jax.runtime.object_store import Bucket
from audiodd_jax.sweep import local, status
from audiodd_jax.sweep.plan import Planned

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(
    scope="module", params=["s3", pytest.param("gs", marks=pytest.mark.nightly)]
)
def served(request):
    with stores.serving(request.param) as store:
        yield store


@pytest.fixture
def store(served, monkeypatch):
    stores.reset(served, monkeypatch)
    return served


@pytest.fixture
def new_machine(tmp_path, monkeypatch):
    """``new_machine()``: what follows has no mirror yet."""
    count = iter(range(100))
    return lambda: monkeypatch.setenv(
        "AUDIODD_MIRRORS", str(tmp_path / f"{next(count)}")
    )


def names_in(store):
    return set(Bucket(*store.url.split("://")).listed(""))


def test_one_machine_writes_a_run_and_others_read_it(store, new_machine, capsys):
    """Also counts the requests."""
    run, site = f"{store.url}/runs/one", f"{store.url}/site"
    flags = [*TINY, "--steps=200", "--config.loop.checkpoint_every=50"]
    flags += ["--config.loop.log_every=25", "--config.loop.eval_every=100"]
    command = ["distill", "--dataset=tones", "--samples_per_class=1", *flags]
    command += [f"--workdir={run}"]
    new_machine()
    main.main(command)
    assert f"{run}/coreset.npz" in capsys.readouterr().out
    requests, listings, received, sent = store.counted()
    checkpoints = [row[2] for row in store.log if "checkpoints" in row[1]]
    with capsys.disabled():
        print(f"\n200 steps: {requests} requests, {received} and {sent} bytes, of them")
        print(f"checkpoints: {len(checkpoints)} requests, {sum(checkpoints)} bytes")
    assert requests <= 60
    assert listings == 1
    new_machine()
    assert len(audiodd_jax.load_coreset(f"{run}/coreset.npz").labels) == 10
    main.main(["evaluate", f"--workdir={run}", "--against=random", "--num_seeds=1"])
    new_machine()
    main.main(["export", run, "--format=numpy", f"--out={store.url}/export"])
    new_machine()
    store.log.clear()
    options = ["--per_class=1", "--iterations=1"]
    main.main(["report", f"{store.url}/runs", f"--out={site}", *options])
    requests = store.counted()[0]
    names = names_in(store)
    read_or_written = [n for n in names if n.startswith(("runs/", "site/"))]
    with capsys.disabled():
        print(f"report: {requests} requests for {len(read_or_written)} files")
    assert requests <= len(read_or_written) + 20
    assert {"runs/one/evaluation/evaluation.json", "export/README.md"} <= names
    assert {"site/index.html", "site/.report"} <= names
    assert not [name for name in names if name.endswith((".lock", ".mirror.json"))]
    # A finished run is read, also on a new machine.
    new_machine()
    capsys.readouterr()
    store.log.clear()
    main.main(command)
    assert "test accuracy" in capsys.readouterr().out
    assert not [row for row in store.log if row[0] in ("PUT", "POST") and row[2] > 300]


def test_recordings_and_features_in_a_store(store, new_machine, sound_folder):
    bucket = Bucket(*store.url.split("://"))
    for file in sound_folder.rglob("*.wav"):
        name = file.relative_to(sound_folder).as_posix()
        bucket.write(f"sounds/{name}", file.read_bytes())
    settings = FeaturesConfig(sample_rate=8000, clip_seconds=0.5, n_mels=8, frames=8)
    local = cache.prepare(
        DataConfig(name="folder", data_dir=str(sound_folder)), settings
    )
    url, shared = f"{store.url}/sounds", f"{store.url}/cache"
    data = DataConfig(name="folder", data_dir=url, cache_dir=shared)
    new_machine()
    remote = cache.prepare(data, settings)
    np.testing.assert_array_equal(remote.features, local.features)
    np.testing.assert_array_equal(remote.labels, local.labels)
    new_machine()
    store.log.clear()
    again = cache.prepare(data, settings)
    assert again.path != remote.path
    np.testing.assert_array_equal(again.features, local.features)
    assert not [row for row in store.log if ".wav" in row[1] and "prefix" not in row[1]]


@pytest.mark.nightly
def test_a_sweep_in_a_store(store, new_machine, tmp_path, capsys):
    new_machine()
    common = dict(flag.removeprefix("--").split("=") for flag in TINY_SELECTION)
    (tmp_path / "grid.py").write_text(f"COMMON = {common}\nGRID = {{'seed': [0]}}\n")
    command = ["sweep", str(tmp_path / "grid.py"), f"--workdir={store.url}/sweep"]
    main.main(command)
    names = Bucket(*store.url.split("://")).listed("sweep/")
    (result,) = [name for name in names if name.endswith("result.json")]
    assert {"sweep/sweep.jsonl", "sweep/status.md"} <= set(names)
    new_machine()
    capsys.readouterr()
    store.log.clear()
    main.main(command)  # skips the run, and knows its score
    shown = capsys.readouterr().out
    accuracy = json.loads(Bucket(*store.url.split("://")).read(result).data)
    assert f"{100 * accuracy['test_accuracy']:.1f}" in shown
    assert f"next: audiodd report {store.url}/sweep" in shown


def test_a_sweep_on_another_machine_returns_its_record(store, new_machine, monkeypatch):
    """As a task of a Ray cluster whose nodes have no folder in common."""
    new_machine()
    workdir = user_paths.local(f"{store.url}/cluster")
    plan = Planned("one", "distill", ())
    sweep = status.Sweep(workdir, workdir, 3)

    def attempt(plan, sweep, *_):
        status.record(sweep.workdir, plan.name, "started", host="b", flags=plan.flags)
        status.record(sweep.workdir, plan.name, "finished", seconds=1.0)
        return "finished"

    monkeypatch.setattr(local, "_attempt", attempt)
    with status.held(workdir):
        status.queue([plan], workdir)
        assert local.perform(plan, sweep, {}) == []  # they share a folder here
        new_machine()
        rows = local.perform(plan, sweep, {})
        assert [row["event"] for row in rows] == ["started", "finished"]
        status.add(workdir, rows)
        (state,) = status.read([plan], workdir)
    assert (state.what, state.attempts, state.host) == ("finished", 2, "b")
    names = Bucket(*store.url.split("://")).listed("cluster/")
    assert list(names) == ["cluster/sweep.jsonl"]
