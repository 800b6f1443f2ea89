"""Distillation from a labelled subset: which labels are read and recorded."""

import dataclasses
import json

import checks
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import TINY_SETTINGS as TINY

import audiodd_jax
from audiodd_jax.active_learning import labelled_subset
from audiodd_jax.commands import distill
from audiodd_jax.config import fields
from audiodd_jax.errors import UserError
from audiodd_jax.features import dataset

SMALL = {**TINY, "teacher__networks": 0, "coreset__views": 0}
ACQUIRED = np.random.default_rng(0).permutation(1800)[:60]


def settings(**changes):
    return audiodd_jax.for_dataset("tones", **{**SMALL, **changes})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data(cache):
    return checks.load(settings(), cache)


@pytest.fixture
def active_run(tmp_path, data):
    """The files of a run that had acquired 40 labels, then 60."""
    run = tmp_path / "bald"
    run.mkdir()
    np.save(run / "labelled.npy", ACQUIRED)
    (run / "data.json").write_text(json.dumps({"digest": data.clips_digest}))
    rounds = [{"counted": n, "labelled": n} for n in (20, 40, 60)]
    (run / "result.json").write_text(json.dumps({"rounds": rounds}))
    return run


def with_noise(data):
    """The same clips; labels that were not acquired are drawn at random."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, data.num_classes, data.train.labels.size)
    labels[ACQUIRED[:40]] = np.asarray(data.train.labels)[ACQUIRED[:40]]
    noise = lambda split: jnp.asarray(
        rng.integers(0, data.num_classes, split.labels.size), jnp.int32
    )
    return dataclasses.replace(
        data,
        train=data.train._replace(labels=jnp.asarray(labels, jnp.int32)),
        validation=data.validation._replace(labels=noise(data.validation)),
    )


CLOCKS = ("seconds", "peak_memory_bytes")


def without_clocks(value):
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not k.endswith(CLOCKS)}
        return {k: without_clocks(v) for k, v in kept.items()}
    return value


def contents(run):
    """The contents of a run directory by file, without times."""
    found = {}
    for name in ("config.json", "data.json", "result.json"):
        found[name] = without_clocks(json.loads((run / name).read_text()))
    rows = (run / "metrics.jsonl").read_text().splitlines()
    found["metrics.jsonl"] = [without_clocks(json.loads(row)) for row in rows]
    with np.load(run / "coreset.npz") as file:
        found |= {k: v.tobytes() for k, v in file.items() if k != "metadata"}
    return found


@pytest.mark.parametrize("pseudo", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_labels_of_other_clips_change_no_file(
    pseudo, active_run, data, cache, tmp_path, monkeypatch
):
    own = {"labels__run": str(active_run), "labels__budget": "4/class"}
    own |= {"coreset__samples_per_class": 1}
    if pseudo:
        own |= {"labels__pseudo": True, "labels__confidence": 0.2}
        own |= {"teacher__networks": 1, "coreset__views": 2}
    config = settings(**own)
    places = []
    for name, found in (("seen", data), ("blind", with_noise(data))):
        monkeypatch.setattr(dataset, "load", lambda *_, found=found, **__: found)
        # A cache of its own: the teacher is trained twice.
        run = audiodd_jax.distill(config, tmp_path / name, tmp_path / f"{name}-cache")
        places.append(run.path)
    seen, blind = map(contents, places)
    assert seen == blind
    labels = seen["result.json"]["labels"]
    assert labels["used"] == 40
    assert (labels["pseudo"] > 0) == pseudo
    assert labels["chosen"] == "by the run bald at 4/class"
    assert seen["result.json"]["num_train"] == data.num_train
    card = (places[0] / "README.md").read_text()
    assert (
        "Labels used: 40 of 2,000 clips in the training split (2.0 %), chosen by"
        in card
    )
    # The shared files name no local folder.
    metadata = audiodd_jax.load_coreset(places[0] / "coreset.npz").metadata
    assert metadata["settings"]["labels"]["run"] == "bald"


def test_the_clips_of_a_budget_are_the_first_that_were_labelled(active_run, data):
    config = settings(labels__run=str(active_run), labels__budget="2%")
    found = labelled_subset.restrict(config, data)
    rows = np.sort(ACQUIRED[:40])
    np.testing.assert_array_equal(found.train.labels, data.train.labels[rows])
    np.testing.assert_array_equal(found.train.images, data.train.take(rows))
    assert found.validation.labels.size == 0
    assert found.num_train == data.num_train == 2000
    assert found.clips_digest != data.clips_digest


def test_a_share_and_a_list_of_clips(data, tmp_path):
    found = labelled_subset.restrict(settings(labels__fraction=0.04), data)
    counts = np.bincount(np.asarray(found.train.labels))
    assert found.train.labels.size == 80
    assert counts.max() - counts.min() <= 1
    file = tmp_path / "rows.txt"
    file.write_text("7 3 5")
    found = labelled_subset.restrict(settings(labels__indices=str(file)), data)
    np.testing.assert_array_equal(
        found.train.labels, data.train.labels[np.array([3, 5, 7])]
    )


def test_all_labels_leave_the_data_unchanged(data):
    assert labelled_subset.restrict(settings(), data) is data


def test_pseudo_labels_are_the_confident_predictions_of_the_teacher(
    data, cache, monkeypatch
):
    """Also where the training clips stay in the cache."""
    sure = np.zeros((data.train.labels.size - 80, 10), np.float32)
    sure[:, 4] = np.linspace(0, 1, len(sure))
    monkeypatch.setattr(labelled_subset.teacher, "probabilities", lambda *_: sure)
    config = settings(
        labels__fraction=0.04,
        labels__pseudo=True,
        labels__confidence=0.75,
        teacher__networks=1,
    )
    streamed = checks.load(fields.replace(config, {"data.storage": "host"}), cache)
    for each in (data, streamed):
        found = labelled_subset.restrict(config, each)
        labelled = labelled_subset.restrict(settings(labels__fraction=0.04), each)
        count = int(np.sum(sure[:, 4] >= 0.75))
        assert found.num_pseudo == count
        assert found.train.labels.size == 80 + count
        assert found.num_train == 2000
        was = np.bincount(np.asarray(labelled.train.labels), minlength=10)
        now = np.bincount(np.asarray(found.train.labels), minlength=10)
        assert (now - was).tolist() == [0] * 4 + [count] + [0] * 5
    assert found.train.is_on_host


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": "30%"}, r"no round with 30% \(600 labels\).* 20, 40, 60"),
        ({"budget": "x"}, "a budget is a fraction"),
        ({"run": "/nowhere"}, "not a finished run of active learning"),
        ({"run": ""}, "belong together"),
        ({"fraction": 0.3}, "exclude each other"),
        ({"run": "", "budget": "", "pseudo": True}, "pass one of them"),
        ({"pseudo": True}, "set teacher.networks"),
        ({"run": "", "budget": "", "fraction": 0.0}, "a fraction is above 0"),
    ],
)
def test_bad_settings_are_named(changes, message, active_run, data):
    own = {"run": str(active_run), "budget": "4/class", **changes}
    config = settings(**{f"labels__{name}": value for name, value in own.items()})

    def use():
        fields.validate(config)
        labelled_subset.restrict(config, data)

    with pytest.raises(UserError, match=message):
        use()


def test_a_labelled_subset_belongs_to_one_fold(tmp_path):
    config = settings(labels__run="runs/bald", labels__budget="20%")
    with pytest.raises(UserError, match="give --fold its number"):
        distill.distill_folds(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_on_other_clips_is_refused(active_run, data):
    other = dataclasses.replace(data, clips_digest="other")
    config = settings(labels__run=str(active_run), labels__budget="4/class")
    with pytest.raises(UserError, match="chose among other clips"):
        labelled_subset.restrict(config, other)


def test_a_class_without_labels_is_named(data, tmp_path):
    file = tmp_path / "rows.txt"
    rows = np.flatnonzero(np.asarray(data.train.labels) != 3)
    file.write_text(" ".join(map(str, rows)))
    with pytest.raises(UserError, match="has 0 training clips"):
        audiodd_jax.distill(settings(labels__indices=str(file)), tmp_path / "run")
