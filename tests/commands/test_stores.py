"""Commands on s3:// and gs://, each on a machine with an empty disk."""

import contextlib
import dataclasses
import json
import os
import pickle
import sys
import types

import labelling
import numpy as np
import pytest
import run_rows
import stores
from command_line import TINY, TINY_SELECTION, fails
from coresets import labelled

import audiodd_jax
from audiodd_jax.active_learning import labelled_subset, rivals
from audiodd_jax.commands import main, score
from audiodd_jax.config import DataConfig, FeaturesConfig, user_paths
from audiodd_jax.features import cache, dataset
from audiodd_jax.runtime import mirror, object_store
from audiodd_jax.runtime.object_store import Bucket
from audiodd_jax.sweep import local, status
from audiodd_jax.sweep.plan import Planned
from audiodd_jax.training import fit, rate_search

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=stores.ONE)
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


@stores.on_both
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


def test_predictions_of_a_stored_model(store, new_machine, sound_folder, capsys):
    bucket = Bucket(*store.url.split("://"))
    new_machine()
    small = {"depth": 1, "width": 4}, {"networks": 1, "width": 4, "seeds": 1}
    settings = dict(zip(("network", "evaluation"), small, strict=True))
    made = labelled(teacher_labels=None)
    made = dataclasses.replace(made, metadata={**made.metadata, "settings": settings})
    made.save(f"{store.url}/model/coreset.npz")
    for name in ("00.wav", "01.wav"):
        bucket.write(f"new/{name}", (sound_folder / "low" / name).read_bytes())
    model, sounds, out = (f"{store.url}/{name}" for name in ("model", "new", "out"))
    command = ["predict", model, sounds, f"--out={out}/a.csv", f"--labels={out}/tracks"]
    new_machine()
    main.main(command)
    printed = capsys.readouterr().out
    assert f"{out}/a.csv" in printed
    written = {"out/a.csv", "out/tracks/00.wav.txt", "out/tracks/01.wav.txt"}
    assert set(bucket.listed("out/")) == written
    rows = bucket.read("out/a.csv").data
    paths = [row.split(b",")[0].decode() for row in rows.splitlines()]
    assert paths == ["path", f"{sounds}/00.wav", f"{sounds}/01.wav"]
    new_machine()  # which has no file of this name
    assert f"{out}/a.csv exists" in fails(capsys, *command)
    main.main([*command, "--overwrite"])
    assert bucket.read("out/a.csv").data == rows
    assert f"there is no model {store.url}/none" in fails(
        capsys, "predict", f"{store.url}/none", sounds
    )


@pytest.mark.nightly
def test_scores_continue_on_another_machine(store, new_machine, monkeypatch, capsys):
    monkeypatch.setattr(score, "_kinds", lambda coreset: (["hard"], []))
    monkeypatch.setattr(rate_search, "MULTIPLES", (1.0,))
    monkeypatch.setattr(rivals, "functions_of", lambda model: ["medoids"])
    new_machine()
    main.main(["distill", *TINY_SELECTION, f"--workdir={store.url}/scored"])
    command = ["score", f"{store.url}/scored", "--model=linear", "--num_seeds=1"]
    command += ["--steps=3", "--config.training.log_every=3"]
    new_machine()
    capsys.readouterr()
    main.main(command)
    shown = capsys.readouterr().out
    bucket = Bucket(*store.url.split("://"))
    names = set(bucket.listed("scored/score/"))
    assert "scored/score/score.json" in names
    assert not [name for name in names if name.endswith(".lock")]
    new_machine()
    monkeypatch.setattr(fit, "fit", None)
    main.main(command)
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("command", ["predict", "score", "report", "label"])
def test_a_store_that_fails_is_one_sentence(
    store, new_machine, monkeypatch, capsys, command
):
    """Also for slow answers, which are tried again like those that never come."""
    new_machine()
    monkeypatch.setattr(object_store, "BACKOFF", 0.01)
    monkeypatch.setattr(object_store, "PATIENCE", 0.2)
    place = f"{store.url}/failing"
    given = {
        "predict": [place, place],
        "score": [place],
        "report": [place, f"--out={store.url}/site"],
        "label": [place, "--ask=csv", f"--workdir={place}-label"],
    }
    for fault, sentence in (
        (403, f"{store.url} refuses access"),
        (429, "cannot be reached"),
        (500, "cannot be reached"),
        ("lost", "cannot be reached"),
        (0.5, "no answer in time"),
    ):
        store.faults = [fault] * 3 * object_store.TRIES  # clients repeat some, too
        assert sentence in fails(capsys, command, *given[command])


def test_labels_in_a_store(store, new_machine, tmp_path, monkeypatch, capsys):
    """Recordings and session are in a bucket, and each table is on another machine."""
    labelling.instant(monkeypatch)
    bucket = Bucket(*store.url.split("://"))
    for file in labelling.sounds(tmp_path / "sounds").iterdir():
        bucket.write(f"pool/{file.name}", file.read_bytes())
    place = f"{store.url}/session"
    command = ["label", f"{store.url}/pool", "--ask=csv", f"--workdir={place}"]
    command += [*labelling.FLAGS, "--budget=12"]
    new_machine()
    main.main(command)
    shown = capsys.readouterr().out
    assert f"fill in the column label of {place}/to_label.csv" in shown
    assert f"audiodd distill --labelled={place}" in shown
    while "all answers are in" not in shown:
        table = bucket.read("session/to_label.csv")
        rows = [row.split(",") for row in table.data.decode().splitlines()]
        filled = [f"{i},{name},{labelling.truth(name)}" for i, name, _ in rows[1:]]
        text = "\n".join([",".join(rows[0]), *filled])
        bucket.write("session/to_label.csv", text.encode())
        new_machine()
        main.main(command)
        shown = capsys.readouterr().out
    assert bucket.read("session/answers.jsonl").data.count(b'"clip"') == 12
    assert "session/to_label.csv" not in bucket.listed("session/")
    # Batches in Python, on one more machine.
    new_machine()
    changes = {**labelling.TINY, "session__budget": 14}
    sounds = f"{store.url}/pool"
    for batch in audiodd_jax.label_rounds(sounds, place, **changes):
        batch.answer(list(map(labelling.truth, batch.names)))
    new_machine()
    small = {"features__frames": 8, "features__n_mels": 8}
    config = audiodd_jax.for_dataset("folder", labelled=place, **small)
    loaded = dataset.load(config.data, config.features, with_unlabelled=True)
    data = labelled_subset.restrict(config, loaded)
    assert data.class_names == ("high", "low", "noise")
    assert len(data.train.labels) + len(data.test.labels) == 14


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


class Cluster(types.ModuleType):
    """Stands in for Ray: each task has a machine of its own, and sends bytes back."""

    exceptions = types.SimpleNamespace(TaskCancelledError=KeyError, RayError=OSError)

    def __init__(self, new_machine):
        super().__init__("ray")
        self._new_machine = new_machine

    def init(self, **_):
        pass

    def cluster_resources(self):
        return {"CPU": 1.0}

    def remote(self, **_):
        return lambda function: types.SimpleNamespace(
            remote=lambda *given: pickle.dumps((function, given))
        )

    def wait(self, tasks, timeout):
        return tasks[:1], tasks[1:]

    def get(self, task):
        function, given = pickle.loads(task)
        with self._new_machine():
            return pickle.loads(pickle.dumps(function(*given)))

    def shutdown(self):
        pass


def test_a_sweep_on_a_cluster_without_a_shared_folder(
    store, new_machine, monkeypatch, tmp_path, capsys
):
    @contextlib.contextmanager
    def node():
        here = os.environ["AUDIODD_MIRRORS"]
        new_machine()
        yield
        monkeypatch.setenv("AUDIODD_MIRRORS", here)

    def attempt(plan, sweep, *_):
        status.record(sweep.workdir, plan.name, "started", host="b", flags=plan.flags)
        run_rows.distillation(sweep.workdir / plan.name, test_accuracy=0.5)
        mirror.publish(sweep.workdir / plan.name)
        status.record(sweep.workdir, plan.name, "finished", seconds=1.0)
        return "finished"

    monkeypatch.setattr(local, "_attempt", attempt)
    monkeypatch.setitem(sys.modules, "ray", Cluster(node))
    grid = tmp_path / "grid.py"
    grid.write_text("COMMON = {'dataset': 'tones'}\nGRID = {'seed': [0, 1]}\n")
    command = ["sweep", str(grid), f"--workdir={store.url}/nodes", "--ray=auto"]
    new_machine()
    main.main(command)
    shown = capsys.readouterr().out
    assert shown.count("| finished |") == shown.count("| 50.0 ") == 2
    new_machine()
    monkeypatch.setattr(local, "_attempt", None)
    main.main(command)  # finished, also for another machine
    assert capsys.readouterr().out == shown
    assert "nodes/status.md" in names_in(store)


@stores.on_both
def test_a_report_of_a_stored_run(store, new_machine):
    new_machine()
    run = user_paths.local(f"{store.url}/reported/one")
    more = {"fraction_of_train": 0.1, "train_bytes": 8000, "num_train": 20}
    more |= {"best_step": 5, "dataset_version": "1.0.0", "licence": "MIT"}
    run_rows.distillation(run, **more)
    labelled(teacher_labels=None).save(run / "coreset.npz")
    mirror.publish(run)
    new_machine()
    place = f"{store.url}/reported"
    main.main(["report", place, f"--out={store.url}/page", "--galleries=0"])
    assert {"page/index.html", "page/.report"} <= names_in(store)


@stores.on_both
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
