"""Trackers of a run's metrics; none of them can end a run."""

import importlib.metadata
import json
import re
import sys
import types
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from audiodd_jax.commands import main
from audiodd_jax.config import Config, extensions, fields
from audiodd_jax.errors import UserError
from audiodd_jax.runtime import trackers
from audiodd_jax.runtime.run_directory import RunDirectory

CONFIG = {"seed": 3, "loop": {"steps": 2}}


def run_with(folder, starts, steps=(1, 2), begin=0, is_finished=True):
    """Records a small run with a picture."""
    with RunDirectory(folder, CONFIG, tracked_by=starts) as run:
        run.start_from(begin)
        for step in steps:
            run.log({"step": step, "loss": 1 / step, "note": "text"})
        (folder / "figures").mkdir(exist_ok=True)
        matplotlib.image.imsave(folder / "figures" / "curve.png", np.zeros((4, 6)))
        if is_finished:
            run.finish({"test_accuracy": 0.5, "dataset": "tones"})


class Notes:
    """A tracker that writes down what it is told, and fails at one call if asked."""

    def __init__(self, fails_at=""):
        self.calls, self._fails_at = [], fails_at

    def _note(self, name, *values):
        self.calls.append((name, *values))
        if name == self._fails_at:
            raise ConnectionError("the server is gone\nwith a long story")

    def start(self, run):
        self._note("start", run.folder.name, run.config, run.step)
        return self

    def scalars(self, step, values):
        self._note("scalars", step, values)

    def images(self, step, pictures):
        self._note("images", step, [*pictures])

    def finish(self, result):
        self._note("finish", result)


def test_a_tracker_is_told_everything_in_order(tmp_path):
    notes = Notes()
    run_with(tmp_path / "run", {"notes": notes.start})
    assert notes.calls == [
        ("start", "run", CONFIG, 1),
        ("scalars", 1, {"loss": 1.0}),
        ("scalars", 2, {"loss": 0.5}),
        ("images", 2, ["curve"]),
        ("finish", {"test_accuracy": 0.5}),
    ]


def test_an_interrupted_run_finishes_without_scores(tmp_path):
    notes = Notes()
    run_with(tmp_path / "run", {"notes": notes.start}, is_finished=False)
    assert notes.calls[-1] == ("finish", {})


@pytest.mark.parametrize("call", ["start", "scalars", "images", "finish"])
def test_a_tracker_that_fails_does_not_end_the_run(tmp_path, caplog, call):
    bad, good = Notes(call), Notes()
    run_with(tmp_path / "run", {"bad": bad.start, "good": good.start})
    assert bad.calls[-1][0] == call
    assert good.calls[-1] == ("finish", {"test_accuracy": 0.5})
    assert json.loads((tmp_path / "run" / "result.json").read_text())
    (message,) = caplog.messages
    assert message == (
        "the tracker bad failed and is left out: ConnectionError: the server is gone"
    )


def test_the_printed_tracker(tmp_path):
    page = Path(__file__).parents[2] / "launch" / "runs.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    names = {}
    exec(block, names)
    run_with(tmp_path / "run", {"book": names["LabBook"]}, steps=(2,))
    lines = (tmp_path / "run" / "lab_book.txt").read_text().splitlines()
    picture = tmp_path / "run" / "figures" / "curve.png"
    assert lines == ["2 {'loss': 0.5}", f"2 {picture}"]


@pytest.mark.slow
def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    starts = {"wandb": trackers.wandb}
    run_with(tmp_path / "run", starts, is_finished=False)
    identifier = json.loads((tmp_path / "run" / "tracker.json").read_text())["wandb"]
    run_with(tmp_path / "run", starts, steps=(3,), begin=2)
    logs = list((tmp_path / "run").glob(f"wandb/offline-run-*/run-{identifier}.wandb"))
    assert any(b"test_accuracy" in log.read_bytes() for log in logs)


@pytest.mark.slow
def test_mlflow_in_a_folder(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    starts = {"mlflow": trackers.mlflow}
    run_with(tmp_path / "run", starts, is_finished=False)
    run_with(tmp_path / "run", starts, steps=(3,), begin=2)
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'audiodd_jax'")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [point.step for point in history] == [1, 2, 3]
    assert run.data.metrics["result.test_accuracy"] == 0.5
    assert run.info.status == "FINISHED"
    artifacts = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"config.json", "figures"}


def test_the_writer_of_clu(tmp_path, monkeypatch):
    """A stand-in, since the package cannot be imported without TensorFlow."""
    calls = []

    class Writer:
        def write_scalars(self, step, scalars):
            calls.append((step, dict(scalars)))

        def write_images(self, step, images):
            calls.append((step, {name: image.shape for name, image in images.items()}))

        def close(self):
            calls.append("closed")

    writers = types.SimpleNamespace(create_default_writer=lambda folder: Writer())
    monkeypatch.setitem(sys.modules, "clu", types.ModuleType("clu"))
    monkeypatch.setattr(sys.modules["clu"], "metric_writers", writers, raising=False)
    run_with(tmp_path / "run", {"clu": trackers.clu}, steps=(2,))
    assert calls == [(2, {"loss": 0.5}), (2, {"curve": (1, 4, 6, 4)}), "closed"]


def test_trackers_are_chosen_by_name(monkeypatch):
    notes = importlib.metadata.EntryPoint("book", "test_trackers:Notes", "g")
    found = importlib.metadata.EntryPoints([notes])
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: found)
    starts = extensions.trackers("tensorboard,book")
    assert list(starts) == ["tensorboard", "book"]
    assert starts["tensorboard"] is trackers.tensorboard
    assert extensions.trackers("") == {}
    fields.validate(fields.replace(Config(), {"tracker": "tensorboard,book"}))


def test_an_unknown_tracker_and_a_missing_package_are_named(monkeypatch):
    with pytest.raises(UserError, match="tracker must be comma-separated names"):
        main.main(["distill", "--dataset=tones", "--tracker=lab_book"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'audiodd_jax\[wandb\]'"):
        extensions.trackers("tensorboard,wandb")


def test_the_tracker_is_not_part_of_a_run():
    config = fields.replace(Config(), {"tracker": "wandb"})
    assert "tracker" not in fields.record(config, fields.DISTILLATION)
