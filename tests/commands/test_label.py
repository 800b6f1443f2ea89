"""``audiodd label`` by table and in Python: answers are kept, missing ones named."""

import csv
import json

import labelling
import numpy as np
import pytest
from command_line import TINY, fails

import audiodd_jax
from audiodd_jax.active_learning import labelled_subset
from audiodd_jax.commands import main
from audiodd_jax.errors import UserError
from audiodd_jax.features import dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return labelling.sounds(tmp_path_factory.mktemp("pool") / "sounds")


@pytest.fixture
def ask(folder, tmp_path, monkeypatch):
    """The command with its table, without networks."""
    labelling.instant(monkeypatch)
    place = f"--workdir={tmp_path / 's'}"
    return ["label", str(folder), "--ask=csv", place, *labelling.FLAGS]


def rows_of(path):
    with path.open() as file:
        mark = ";" if ";" in file.readline() else ","
        file.seek(0)
        return list(csv.DictReader(file, delimiter=mark))


def fill(path, label, rows=None):
    """Writes labels as a spreadsheet would; ``rows`` restricts them."""
    found = rows_of(path)
    for i, row in enumerate(found):
        if rows is None or i in rows:
            row["label"] = label(row["path"])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["order", "path", "label"], delimiter=";")
        writer.writeheader()
        writer.writerows(found)


def journal(workdir):
    lines = (workdir / "answers.jsonl").read_text().splitlines()
    events = map(json.loads, lines)
    return {e["clip"]: e.get("labels") for e in events if "clip" in e}


def test_the_table_continues_once_it_is_filled(ask, tmp_path, capsys):
    workdir = tmp_path / "s"
    table = workdir / "to_label.csv"
    main.main(ask)
    assert f"fill in the column label of {table}" in capsys.readouterr().out
    first = rows_of(table)
    assert [row["order"] for row in first] == ["1", "2", "3", "4"]
    sentence = fails(capsys, *ask)
    assert "4 recordings have no label: line 2 (" in sentence
    # Some rows: these answers are kept, the others are named, the table stays.
    fill(table, labelling.truth, rows=[0, 2])
    before = table.read_bytes()
    sentence = fails(capsys, *ask)
    for row, is_named in zip(first, (False, True, False, True), strict=True):
        assert (row["path"] in sentence) == is_named
    assert table.read_bytes() == before
    assert set(journal(workdir)) == {first[0]["path"], first[2]["path"]}
    fill(table, lambda name: "?" if name == first[1]["path"] else labelling.truth(name))
    written = table.read_bytes()
    main.main(ask)
    # What the person wrote is kept, and the next table has other recordings.
    assert (workdir / "to_label-001.csv").read_bytes() == written
    assert journal(workdir)[first[1]["path"]] is None
    second = rows_of(table)
    assert not {row["path"] for row in first} & {row["path"] for row in second}
    while table.exists():
        fill(table, labelling.truth)
        main.main(ask)
    out = capsys.readouterr().out
    assert "all answers are in" in out
    assert "validation accuracy" in out
    assert "Bloodgood" in out


def test_wrong_rows_are_named_and_the_others_kept(ask, tmp_path, capsys):
    table = tmp_path / "s" / "to_label.csv"
    main.main(ask)
    capsys.readouterr()
    found = rows_of(table)
    labels = iter(["low", "a;b", "high", "noise"])
    fill(table, lambda _: next(labels))
    sentence = fails(capsys, *ask)
    assert "line 3" in sentence
    assert "semicolon" in sentence
    assert len(journal(tmp_path / "s")) == 3
    text = table.read_text()
    table.write_text(text.splitlines()[0] + "\n")
    assert f"no line for {found[1]['path']}" in fails(capsys, *ask)
    text = text.replace('"a;b"', "low").replace(found[0]["path"], "gone.wav")
    table.write_text(text)
    assert "no recording gone.wav" in fails(capsys, *ask)


def test_a_table_that_was_saved_again_is_not_overwritten(ask, tmp_path, monkeypatch):
    """A spreadsheet saves its copy while the network is trained."""
    workdir = tmp_path / "s"
    table = workdir / "to_label.csv"
    main.main(ask)
    fill(table, labelling.truth)
    from audiodd_jax.active_learning.session import Session

    train = Session._train

    def save_again(self, *given):
        table.write_text("written by a person")
        return train(self, *given)

    monkeypatch.setattr(Session, "_train", save_again)
    main.main(ask)
    assert (workdir / "to_label-002.csv").read_text() == "written by a person"
    assert len(rows_of(table)) == 4


def test_tags_in_a_table(folder, tmp_path, monkeypatch, capsys):
    labelling.instant(monkeypatch)
    place = f"--workdir={tmp_path / 's'}"
    ask = ["label", str(folder), "--ask=csv", "--tags", place, *labelling.FLAGS]
    main.main(ask)
    labels = iter(["low; loud", "-", "high", "low"])
    fill(tmp_path / "s" / "to_label.csv", lambda _: next(labels))
    main.main(ask)
    found = list(journal(tmp_path / "s").values())
    assert found == [["loud", "low"], [], ["high"], ["low"]]


def test_a_review_keeps_and_changes_answers(ask, folder, tmp_path, monkeypatch, capsys):
    from audiodd_jax.active_learning.session import Session

    main.main(ask)
    fill(tmp_path / "s" / "to_label.csv", labelling.truth)
    names = [row["path"] for row in rows_of(tmp_path / "s" / "to_label.csv")]
    main.main(ask)
    contested = lambda self: [
        (name, "high") for name in names[:2] if name not in self.journal.kept
    ]
    monkeypatch.setattr(Session, "contested", contested)
    main.main([*ask, "--review"])
    review = tmp_path / "s" / "review.csv"
    rows = rows_of(review)
    assert [row["answer"] for row in rows] == [labelling.truth(n) for n in names[:2]]
    assert "2 recordings have no label" in fails(capsys, *ask, "--review")
    text = review.read_text().splitlines()
    review.write_text("\n".join([text[0], text[1] + "other", text[2] + "high"]) + "\n")
    main.main([*ask, "--review"])
    assert journal(tmp_path / "s")[names[0]] == ["other"]
    assert journal(tmp_path / "s")[names[1]] == ["high"]
    assert "no contested answers" in capsys.readouterr().out


def test_batches_in_python(folder, tmp_path, monkeypatch):
    labelling.instant(monkeypatch)
    seen = []
    for batch in audiodd_jax.label_rounds(folder, tmp_path / "s", **labelling.TINY):
        seen += batch.names
        assert all(path.is_file() for path in batch.paths)
        labels = [labelling.truth(name) for name in batch.names]
        batch.answer([*labels[:-1], None])
    assert sorted(seen) == sorted(path.name for path in folder.iterdir())
    assert list(journal(tmp_path / "s").values()).count(None) == 5
    assert (
        list(audiodd_jax.label_rounds(folder, tmp_path / "s", **labelling.TINY)) == []
    )


def test_a_batch_without_answers_is_refused(folder, tmp_path, monkeypatch):
    labelling.instant(monkeypatch)
    rounds = audiodd_jax.label_rounds(folder, tmp_path / "s", **labelling.TINY)
    batch = next(rounds)
    with pytest.raises(UserError, match="has 4 recordings, not 1"):
        batch.answer(["low"])
    with pytest.raises(UserError, match=r"4 of 4 recordings have no answer"):
        next(rounds)


def test_the_way_of_asking_is_named(folder, capsys, tmp_path):
    sentence = fails(capsys, "label", str(folder))
    assert sentence.endswith("audiodd label asks by --serve, or by --ask=csv")
    assert "by --serve" in fails(capsys, "label", str(folder), "--ask=json")


@pytest.fixture
def session(folder, tmp_path, monkeypatch):
    """A session with answers of two classes on most of the recordings."""
    labelling.instant(monkeypatch)
    workdir = tmp_path / "s"
    given = {"budget": 10, "session__validation": 0.3}
    settings = {**labelling.TINY, **given}
    for batch in audiodd_jax.label_rounds(folder, workdir, **settings):
        names = map(labelling.truth, batch.names)
        batch.answer([None if name == "noise" else name for name in names])
    return workdir


def test_distillation_reads_the_answers_alone(session, folder):
    """Other recordings are left out; a session without a budget is complete."""
    config = audiodd_jax.for_dataset(
        "folder", labelled=str(session), features__frames=8, features__n_mels=8
    )
    assert config.data.data_dir == config.labels.run == str(session)
    loaded = dataset.load(config.data, config.features, with_unlabelled=True)
    data = labelled_subset.restrict(config, loaded)
    answers = journal(session)
    known = [name for name, labels in answers.items() if labels]
    assert data.class_names == ("high", "low")
    tested = len(data.test.labels)
    assert 0 < tested < len(known)
    assert len(data.train.labels) == len(known) - tested
    counts = [list(answers.values()).count([name]) for name in data.class_names]
    both = np.concatenate([data.train.labels, data.test.labels])
    assert np.bincount(both).tolist() == counts
    assert data.num_unlabelled == len(list(folder.iterdir())) - len(known)


@pytest.mark.slow
def test_answers_are_distilled_and_a_coreset_learns_a_new_class(
    session, folder, tmp_path, capsys
):
    tiny = [flag for flag in TINY if "top_db" not in flag]
    distill = ["distill", f"--labelled={session}", *tiny, "--samples_per_class=1"]
    main.main([*distill, f"--workdir={tmp_path / 'first'}"])
    first = audiodd_jax.load_coreset(tmp_path / "first" / "coreset.npz")
    assert first.class_names == ("high", "low")
    settings = {**labelling.TINY, "budget": 18, "session__validation": 0.3}
    for batch in audiodd_jax.label_rounds(folder, session, **settings):
        batch.answer([labelling.truth(name) for name in batch.names])
    with labelling.session(folder, session, session__validation=0.3) as again:
        for name in again.clips:
            again.answer(name, [labelling.truth(name)])
    more = f"--continue={tmp_path / 'first' / 'coreset.npz'}"
    main.main([*distill, more, "--steps=1", f"--workdir={tmp_path / 'second'}"])
    second = audiodd_jax.load_coreset(tmp_path / "second" / "coreset.npz")
    assert second.class_names == ("high", "low", "noise")
    # Its start is the earlier coreset, and a recording of the new class.
    result = json.loads((tmp_path / "second" / "result.json").read_text())
    assert result["num_samples"] == 3
    distance = np.abs(second.images[:2] - first.images).mean()
    assert distance < 0.5 * np.abs(second.images[0] - first.images[1]).mean()
    # A class alone joins both, whose recordings are not needed.
    alone = labelling.sounds(tmp_path / "alone" / "hiss", 4).parent
    plain = [flag for flag in tiny if "labelled" not in flag]
    where = ["--dataset=folder", f"--data_dir={alone}", "--samples_per_class=1"]
    third = tmp_path / "third"
    given = ["distill", *where, *plain, more, "--steps=1", f"--workdir={third}"]
    main.main(given)
    wider = audiodd_jax.load_coreset(third / "coreset.npz")
    assert wider.class_names == ("high", "low", "hiss")
    np.testing.assert_allclose(wider.images[:2], first.images, atol=1e-4)
    result = json.loads((third / "result.json").read_text())
    assert result["untested_classes"] == ["high", "low"]
    with pytest.raises(UserError, match="holds 1 class of sounds"):
        main.main(given[: given.index(more)])
