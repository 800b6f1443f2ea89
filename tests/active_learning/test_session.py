"""A person's session: batches without labels, new classes, locks, review."""

import json

import labelling
import numpy as np
import pytest

from audiodd_jax.active_learning import query, rounds
from audiodd_jax.active_learning.learner import Learner
from audiodd_jax.active_learning.session import Session
from audiodd_jax.data import sessions
from audiodd_jax.errors import InUseError, UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return labelling.sounds(tmp_path_factory.mktemp("pool") / "sounds")


def answered(session, names, label=labelling.truth):
    for name in names:
        session.answer(name, [label(name)])


@pytest.mark.slow
def test_a_session_from_no_label_to_all(folder, tmp_path, monkeypatch):
    """The first batch needs no label, and a class that appears late gets an output."""
    functions, choose = [], query.make_choose

    def seen(config, *given):
        chosen = choose(config, *given)
        return lambda *a: (functions.append(config.acquisition), chosen(*a))[1]

    monkeypatch.setattr(query, "make_choose", seen)
    is_late = lambda name: "low" if name.startswith("high") else labelling.truth(name)
    with labelling.session(folder, tmp_path / "s", acquisition="margin") as session:
        batches = [session.next_batch()]
        assert functions == ["typiclust"]
        # One class alone: a network has nothing to learn.
        answered(session, batches[0], lambda _: "low")
        batches.append(session.next_batch())
        assert functions == ["typiclust"] * 2
        assert session.rounds == []
        for batch in batches:
            answered(session, batch, is_late)
        batches.append(session.next_batch())
        assert functions[-1] == "margin"
        classes = session.rounds[-1]["classes"]
        answered(session, batches[2])
        session.answer(batches[2][0], ["a late class"])
    # Another process continues.
    with labelling.session(folder, tmp_path / "s", acquisition="margin") as session:
        assert session.opinion(batches[0][0])[0][0] in ("low", "noise")
        while batch := session.next_batch():
            batches.append(batch)
            answered(session, batch)
        assert session.rounds[-1]["classes"] > classes
        assert [row["step"] for row in session.rounds] == list(
            range(1, len(session.rounds) + 1)
        )
        names = [name for batch in batches for name in batch]
        assert sorted(names) == sorted(session.clips)
        assert "a late class" in dict(session.opinion(names[0]))
        last = session.rounds[-1]
        held = [n for n, c in session.clips.items() if sessions.held_out(c, 0.2) < 1]
        assert last["validated"] == len(held) > 0
        assert last["labelled"] == len(session.clips) - len(held)
        assert last["validation_low"] < last["validation_accuracy"] + 1e-9
        assert 0 <= last["agreement"] <= 1


def test_networks_and_choices_are_those_of_the_simulated_rounds(
    folder, tmp_path, monkeypatch
):
    """Both train by ``rounds.train`` and choose by ``query.make_choose``."""
    trained = []

    class StopError(Exception):
        pass

    def train(data, compiled, rows, seed, *given, **options):
        trained.append(sorted(rows.tolist()))
        raise StopError

    monkeypatch.setattr(rounds, "train", train)
    with labelling.session(folder, tmp_path / "s", session__validation=0.0) as session:
        names = sorted(session.clips)
        for name in names[::4]:
            session.answer(name, [labelling.truth(name)])
        with pytest.raises(StopError):
            session.next_batch()
        rows = [session._learner.names.index(name) for name in names[::4]]
    assert trained == [sorted(rows)]


def test_two_processes_do_not_write_one_session(folder, tmp_path):
    with (
        labelling.session(folder, tmp_path / "s"),
        pytest.raises(InUseError, match="another process"),
        labelling.session(folder, tmp_path / "s"),
    ):
        pass


def test_impossible_answers_are_named(folder, tmp_path):
    with labelling.session(folder, tmp_path / "s") as session:
        with pytest.raises(UserError, match=r"no recording x\.wav"):
            session.answer("x.wav", ["dog"])
        with pytest.raises(UserError, match="takes one class"):
            session.answer("low0.wav", ["dog", "cat"])
        with pytest.raises(UserError, match="none was given"):
            session.answer("low0.wav", [" "])
        with pytest.raises(UserError, match="semicolon"):
            session.answer("low0.wav", ["a;b"])
        assert session.answered == 0
    with (
        pytest.raises(UserError, match=r"session\.validation"),
        labelling.session(folder, tmp_path / "s", session__validation=0.5),
    ):
        pass


def test_settings_of_the_search_may_change_and_the_budget_ends_it(
    folder, tmp_path, monkeypatch
):
    labelling.instant(monkeypatch)
    with labelling.session(folder, tmp_path / "s", budget=6) as session:
        answered(session, session.next_batch())
        answered(session, session.next_batch())
        assert session.answered == 6
        assert session.next_batch() == ()
        assert not session.can_ask
    with labelling.session(folder, tmp_path / "s", budget=8, batch=1) as session:
        assert len(session.next_batch()) == 1


def test_skipped_recordings_come_last_and_unsure_ones_never(
    folder, tmp_path, monkeypatch
):
    labelling.instant(monkeypatch)
    with labelling.session(folder, tmp_path / "s") as session:
        first = session.next_batch()
        session.skip(first[0])
        session.unsure(first[1])
        answered(session, first[2:])
        later = []
        while batch := session.next_batch():
            later += batch
            answered(session, batch)
        assert first[0] in later
        assert first[1] not in later


def test_reviewed_answers_are_not_contested_again(folder, tmp_path, monkeypatch):
    def fit(self, data, rows, number):
        truth = [labelling.truth(name) for name in self.names]
        return None, np.eye(len(data.class_names))[
            [data.class_names.index(one) for one in truth]
        ]

    monkeypatch.setattr(Learner, "fit", fit)
    with labelling.session(folder, tmp_path / "s") as session:
        answered(session, session.clips)
        wrong = ("high1.wav", "low2.wav", "noise3.wav")
        answered(session, wrong, lambda name: "low" if "low" not in name else "high")
        found = dict(session.contested())
        assert found == {name: labelling.truth(name) for name in wrong}
        session.answer(wrong[0], ["high"])
        session.keep(wrong[1])
        assert list(dict(session.contested())) == [wrong[2]]


def test_old_sessions_are_plain_files(folder, tmp_path, monkeypatch):
    labelling.instant(monkeypatch)
    with labelling.session(folder, tmp_path / "s") as session:
        answered(session, session.next_batch())
    lines = (tmp_path / "s" / "answers.jsonl").read_text().splitlines()
    assert [next(iter(json.loads(line))) for line in lines] == ["ask", *["clip"] * 4]
    record = json.loads((tmp_path / "s" / "config.json").read_text())
    assert record["session"]["sounds"] == str(folder)
    assert isinstance(session, Session)
