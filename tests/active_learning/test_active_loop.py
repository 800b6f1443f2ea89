"""The rounds: which clips they label, no other label is read, cut runs resume."""

import dataclasses
import functools
import itertools
import os
import signal

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.active_learning import query
from audiodd_jax.active_learning import rounds as rounds_lib
from audiodd_jax.config import presets
from audiodd_jax.config.names import ACQUISITIONS, COMMITTEE
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.runtime.signals import Interrupted
from audiodd_jax.training import evaluation, fit, programs


@pytest.fixture(autouse=True)
def _shared_programs(monkeypatch):
    monkeypatch.setattr(programs, "make", checks.shared_programs)


STATS = Normalization(*(np.full(8, v, np.float32) for v in (0, 10)))
SMALL = {
    "model__depth": 2,
    "model__width": 4,
    "training__steps": 6,
    "training__batch_size": 8,
    "training__log_every": 2,
    "training__checkpoint_every": 2,
    "training__learning_rate": 1e-2,
    "active__passes": 3,
    "active__committee": 2,
    "active__chunk": 16,
    "active__budgets": ("2/class", "4/class"),
    "active__initial": "1/class",
}


def settings(**changes):
    return presets.for_active(
        presets.for_dataset("tones"), "convnet", **{**SMALL, **changes}
    )


def clips(b, seed=0, noise=1.0):
    """Three classes, each a bump at another mel bin."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(b) % 3).astype(np.int32)
    images = noise * rng.standard_normal((b, 8, 8, 1)).astype(np.float32)
    images[np.arange(b), 1 + 2 * labels] += 1.5
    return Clips(jnp.asarray(images), jnp.asarray(labels))


def prepared(train=None, validation=6):
    return checks.prepared(
        train or clips(40), clips(validation, 1), STATS, test=clips(30, 2)
    )


def learn(config=None, data=None, path=None):
    config, data = config or settings(), data or prepared()
    if path is None:
        return rounds_lib.label_rounds(config, data)
    with RunDirectory(path, dataclasses.asdict(config)) as run:
        return rounds_lib.label_rounds(config, data, run)


@functools.cache
def at_random():
    """A run of one function, to compare the others with."""
    return learn(settings(active__acquisition="random"))


def strip(rounds):
    clocks = ("seconds", "training_seconds", "scoring_seconds")
    return [{k: v for k, v in row.items() if k not in clocks} for row in rounds]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name == "consensus_kl"))
        for name in ACQUISITIONS
    ],
)
def test_every_function_labels_new_clips_up_to_the_budgets(name):
    found = learn(settings(active__acquisition=name))
    assert [row["labelled"] for row in found.rounds] == [3, 6, 12]
    # Two budgets are two rounds, after the seed set.
    named = [row["round"] for row in found.rounds]
    assert named == ["seed set", "round 1 of 2", "round 2 of 2"]
    assert len(set(found.labelled.tolist())) == 12
    labels = np.asarray(prepared().train.labels)
    for row in found.rounds:
        rows = found.labelled[: row["labelled"]]
        assert row["class_counts"] == np.bincount(labels[rows], minlength=3).tolist()
        assert row["fraction"] == row["labelled"] / 46
    # The seed set is the same for all of them, and has one of each class.
    assert found.rounds[0]["class_counts"] == [1, 1, 1]
    other = at_random()
    assert found.labelled[:3].tolist() == other.labelled[:3].tolist()
    if name not in COMMITTEE:  # which trains several networks
        assert strip(found.rounds[:1]) == strip(other.rounds[:1])


@pytest.mark.parametrize("name", ["bald", "k_center", "badge", "probcover"])
def test_labels_of_other_clips_are_not_read(name):
    config = settings(active__acquisition=name, active__initial_draw="uniform")
    data = prepared()
    found = learn(config, data)
    labels = np.array(data.train.labels)
    others = np.setdiff1d(np.arange(labels.size), found.labelled)
    labels[others] = np.random.default_rng(3).integers(0, 3, others.size)
    blind = learn(config, prepared(data.train._replace(labels=jnp.asarray(labels))))
    assert blind.labelled.tolist() == found.labelled.tolist()
    assert strip(blind.rounds) == strip(found.rounds)


def test_test_clips_change_no_choice():
    data = prepared()
    found = learn(data=data)
    noise = dataclasses.replace(data, test=clips(30, 5, noise=50.0))
    assert learn(data=noise).labelled.tolist() == found.labelled.tolist()


def test_a_pool_on_the_host_matches_one_on_the_device():
    rng = np.random.default_rng(0)
    features = rng.uniform(-20, 20, (40, 8, 8)).astype(np.float16)
    labels = jnp.arange(40, dtype=jnp.int32) % 3
    host = Clips(features, labels, STATS, rows=np.arange(40))
    streamed = learn(data=prepared(host))
    on_device = learn(data=prepared(Clips(host.take(np.arange(40)), labels)))
    assert streamed.labelled.tolist() == on_device.labelled.tolist()


@pytest.mark.optimized
@pytest.mark.parametrize(
    ("place", "warm"),
    [
        pytest.param("training", True, marks=pytest.mark.slow),
        ("testing", False),
        ("row", True),
        ("saved", False),
    ],
)
def test_a_resumed_run_matches_an_uninterrupted_one(tmp_path, monkeypatch, place, warm):
    config = settings(active__warm_start=warm, training__average=0.9)
    whole = learn(config, path=tmp_path / "whole")
    count, log = 0, RunDirectory.log
    networks, choose = evaluation.networks, query.make_choose

    def die_at(limit):
        nonlocal count
        count += 1
        if count == limit:
            raise checks.Killed

    def log_and_die(self, row):
        log(self, row)
        if place == "training" and "loss" in row and self.path.name == "02":
            die_at(2)
        if place == "row" and "labelled" in row:
            die_at(2)

    def test_and_die(*args):
        if place == "testing":
            die_at(2)
        return networks(*args)

    def make_choose_and_die(*args):
        inner = choose(*args)

        def chosen(*args):
            rows = inner(*args)
            if place == "saved":
                die_at(2)
            return rows

        return chosen

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "log", log_and_die)
        patch.setattr(evaluation, "networks", test_and_die)
        patch.setattr(query, "make_choose", make_choose_and_die)
        with pytest.raises(checks.Killed):
            learn(config, path=tmp_path / "cut")
    resumed = learn(config, path=tmp_path / "cut")
    assert resumed.labelled.tolist() == whole.labelled.tolist()
    assert strip(resumed.rounds) == strip(whole.rounds)
    same = [np.load(tmp_path / n / "networks.npz") for n in ("whole", "cut")]
    for name in same[0].files:
        np.testing.assert_array_equal(same[0][name], same[1][name])
    if place == "row":  # a run directory is not required
        assert strip(learn(config).rounds) == strip(whole.rounds)
    # The checkpoints of the rounds' trainings are deleted.
    assert not list((tmp_path / "cut" / "rounds").glob("*/checkpoints"))


def test_a_signal_stops_between_chunks_and_nothing_is_lost(tmp_path, monkeypatch):
    whole = learn(path=tmp_path / "whole")
    make = query.make_choose

    def make_and_signal(config, model, data, between, *others):
        def signalled():
            os.kill(os.getpid(), signal.SIGTERM)
            between()

        return make(config, model, data, signalled, *others)

    with monkeypatch.context() as patch:
        patch.setattr(query, "make_choose", make_and_signal)
        with pytest.raises(Interrupted):
            learn(path=tmp_path / "cut")
    resumed = learn(path=tmp_path / "cut")
    assert resumed.labelled.tolist() == whole.labelled.tolist()
    assert strip(resumed.rounds) == strip(whole.rounds)


def test_a_warm_start_continues_from_the_previous_round(monkeypatch):
    starts, whole = [], fit.fit

    def watched(*args, start=None, **named):
        fitted = whole(*args, start=start, **named)
        starts.append((start, fitted.networks))
        return fitted

    monkeypatch.setattr(fit, "fit", watched)
    learn(settings(active__warm_start=True))
    assert starts[0][0] is None
    for (_, before), (start, _) in itertools.pairwise(starts):
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(start), strict=True):
            np.testing.assert_array_equal(a, b)
    starts.clear()
    learn()
    assert [start for start, _ in starts] == [None, None, None]
    # From scratch, each round starts from another network.
    kernels = [jax.tree.leaves(networks)[0] for _, networks in starts]
    assert not np.array_equal(kernels[0], kernels[1])


def test_early_stopping_keeps_the_best_network():
    config = settings(training__steps=20, training__eval_every=2, training__patience=1)
    found = learn(config)
    assert all(row["training_steps"] <= 20 for row in found.rounds)
    assert "validation_accuracy" in found.rounds[0]


def test_validation_clips_count_on_request():
    found = learn(settings(active__count_validation=True, active__budgets=("5/class",)))
    assert [row["labelled"] for row in found.rounds] == [3, 9]
    assert [row["counted"] for row in found.rounds] == [9, 15]
    assert found.rounds[1]["fraction"] == 15 / 46


def test_the_whole_pool_can_be_labelled():
    config = settings(active__budgets=("100%",))
    found = learn(config, prepared(validation=0))
    assert sorted(found.labelled.tolist()) == list(range(40))


@pytest.mark.parametrize("count", [3, 7, 12])
def test_a_balanced_seed_set(count):
    labels = jnp.array([0] * 20 + [1] * 5 + [2] * 15)
    key = jax.random.key(count)
    rows = query.seed_set(key, labels, count, ("a", "b", "c"), "balanced")
    counts = np.bincount(np.asarray(labels)[rows], minlength=3)
    assert counts.max() - counts.min() <= 1
    assert len(set(rows.tolist())) == count
    other = query.seed_set(
        jax.random.key(99), labels, count, ("a", "b", "c"), "balanced"
    )
    assert set(rows.tolist()) != set(other.tolist())


def test_a_class_that_runs_out_is_named():
    labels = jnp.array([0] * 20 + [1] * 2 + [2] * 15)
    with pytest.raises(UserError, match=r"needs 3 per class, .* 'b' has 2 .*uniform"):
        query.seed_set(jax.random.key(0), labels, 9, ("a", "b", "c"), "balanced")
    rows = query.seed_set(jax.random.key(0), labels, 9, ("a", "b", "c"), "uniform")
    assert len(set(rows.tolist())) == 9


def test_acquisition_continues_after_a_class_runs_out():
    """All clips of a class of two are labelled; the other classes continue."""
    data = clips(40)
    labels = np.array(data.labels)
    labels[labels == 1] = 2
    labels[:2] = 1
    data = prepared(data._replace(labels=jnp.asarray(labels)))
    found = learn(settings(active__budgets=("80%",)), data)
    assert found.rounds[-1]["class_counts"][1] == 2
    assert found.rounds[-1]["labelled"] == 37


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"active__budgets": ("4/class", "2/class")}, "budgets must increase"),
        ({"active__budgets": ("95%",)}, r"44 clips, but the pool has 40"),
        ({"active__initial": "20/class"}, "seed set"),
        ({"model__dropout": 0.0}, r"bald scores clips by MC-dropout"),
        ({"training__seeds": 2}, "one network per round"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        learn(settings(**changes))


@pytest.mark.parametrize("name", ["random", "k_center", "badge"])
def test_functions_without_passes_need_no_dropout(name):
    found = learn(settings(active__acquisition=name, model__dropout=0.0))
    assert [row["labelled"] for row in found.rounds] == [3, 6, 12]
    assert np.unique(found.labelled).size == 12


def test_more_labels_teach_more():
    """Averaged over two seeds, since three clips may be a lucky draw."""
    gains = []
    for seed in (0, 1):
        config = settings(
            seed=seed,
            training__steps=60,
            active__acquisition="random",
            active__budgets=("2/class", "80%"),
        )
        rounds = learn(config).rounds
        gains.append(rounds[-1]["test_accuracy"] - rounds[0]["test_accuracy"])
    assert np.mean(gains) > 0.1


@pytest.mark.slow
def test_a_batch_that_is_diverse_and_cheap():
    """If clips have the same spectrograms, the shorter ones are labelled."""
    half = clips(20)
    both = Clips(jnp.tile(half.features, (2, 1, 1, 1)), jnp.tile(half.labels, 2))
    data = dataclasses.replace(prepared(both), seconds=np.repeat([1.0, 100.0], 20))
    given = {"active__cost": "seconds", "active__initial_draw": "uniform"}
    found = learn(settings(active__acquisition="max_entropy", **given), data)
    assert (found.labelled[3:] < 20).mean() > 0.9
    diverse = learn(
        settings(active__acquisition="max_entropy", active__diversity=3, **given), data
    )
    assert len(set(diverse.labelled.tolist())) == 12
    assert diverse.labelled.tolist() != found.labelled.tolist()


def test_an_annotator_replaces_the_truth():
    """Its wrong answers are learnt, and a resumed run asks for the same ones."""
    data = prepared()
    truth, seen = np.asarray(data.train.labels), []

    def annotate(rows):
        seen.extend(rows.tolist())
        return (truth[rows] + 1) % 3

    config = settings(active__acquisition="random")
    found = rounds_lib.label_rounds(config, data, annotate=annotate)
    assert seen == found.labelled.tolist()
    assert found.labelled.tolist() == at_random().labelled.tolist()
    counts = found.rounds[-1]["class_counts"]
    assert counts == np.bincount((truth[found.labelled] + 1) % 3).tolist()
    assert found.rounds[-1]["test_accuracy"] < 0.5
