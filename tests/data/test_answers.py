"""The journal of answers: what it keeps, after undos, kills and full disks."""

import json
import os
import subprocess
import sys

import pytest

from audiodd_jax.data import answers
from audiodd_jax.data.answers import Answer, Journal
from audiodd_jax.errors import UserError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.jsonl"


def filled(path):
    journal = Journal(path, ["dog"])
    journal.append({"ask": ["a", "b", "c", "d"]})
    journal.append({"clip": "a", "labels": ["cat"]})
    journal.append({"clip": "b", "skip": True})
    journal.append({"clip": "c", "unsure": True})
    return journal


def everything(journal):
    names = ("a", "b", "c", "d")
    found = {name: (journal.answer(name), journal.version(name)) for name in names}
    return found, journal.labelled, journal.waiting(), journal.class_names


def test_the_last_answer_counts(path):
    journal = filled(path)
    journal.append({"clip": "a", "labels": ["cow", "cat"]})
    assert journal.labelled == {"a": ("cow", "cat")}
    assert journal.class_names == ["dog", "cat", "cow"]
    assert journal.waiting() == ["d"]
    assert journal.answer("c") == Answer(None, is_unsure=True)
    assert everything(Journal(path, ["dog"])) == everything(journal)


def test_a_skipped_recording_waits_when_it_is_asked_again(path):
    journal = filled(path)
    journal.append({"ask": ["b"]})
    assert journal.waiting() == ["b", "d"]
    journal.append({"clip": "b", "skip": True})
    assert journal.waiting() == ["d"]


def test_undo_takes_answers_back_one_by_one(path):
    journal = filled(path)
    journal.append({"clip": "a", "labels": ["cow"]})
    for name, left in (("a", "c"), ("c", "b"), ("b", "a"), ("a", None)):
        assert journal.latest == name
        journal.append({"undo": name})
        assert journal.latest == left
    assert journal.waiting() == ["a", "b", "c", "d"]
    assert journal.labelled == {}
    assert everything(Journal(path, ["dog"])) == everything(journal)


def test_an_incomplete_line_is_dropped_and_the_rest_kept(path):
    """At every byte of the last line, where a kill may have left it."""
    filled(path)
    whole = path.read_bytes()
    line = json.dumps({"clip": "d", "labels": ["öl"]}).encode()
    for cut in range(len(line) + 1):
        path.write_bytes(whole + line[:cut])
        journal = Journal(path, ["dog"])
        assert journal.waiting() == ["d"]
        journal.append({"clip": "d", "labels": ["last"]})
        assert path.read_bytes().startswith(whole)
        assert Journal(path).labelled["d"] == ("last",)


def test_a_damaged_line_is_named_and_nothing_is_dropped(path):
    filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for damage in (b"{\n", b"[]\n", b'{"labels": []}\n', b'{"undo": "z"}\n'):
        path.write_bytes(b"".join([lines[0], damage, *lines[1:]]))
        with pytest.raises(UserError, match="line 2 is damaged"):
            Journal(path)


def test_an_answer_is_on_the_disk_before_it_counts(path, monkeypatch):
    journal, order = filled(path), []
    sync, apply = os.fsync, Journal._apply
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("disk"), sync(file)))
    monkeypatch.setattr(
        Journal, "_apply", lambda *event: (order.append("state"), apply(*event))
    )
    journal.append({"clip": "d", "labels": ["cat"]})
    assert order == ["disk", "state"]


def test_a_full_disk_loses_no_earlier_answer(path, monkeypatch):
    journal = filled(path)
    before, sync = everything(journal), os.fsync

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(answers.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as failed:
        journal.append({"clip": "d", "labels": ["cat"]})
    assert failed.value.filename == str(path)
    assert everything(journal) == before
    monkeypatch.setattr(answers.os, "fsync", sync)
    journal.append({"clip": "d", "labels": ["cat"]})
    assert Journal(path).labelled["d"] == ("cat",)


# Each child answers as fast as it can, and is killed at a random moment.
_KILLS = """
import os, random, sys, time
from pathlib import Path
from audiodd_jax.data.answers import Journal

path, rng, confirmed, typed = Path(sys.argv[1]), random.Random(0), set(), set()
for kill in range(100):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        journal, number = Journal(path), 0
        while True:
            name, number = f"{kill}-{number}", number + 1
            journal.append({"clip": name, "labels": [name]})
            os.write(write, f"{name} ".encode())
    os.close(write)
    time.sleep(0.05 * rng.random())
    os.kill(child, 9)
    os.waitpid(child, 0)
    with os.fdopen(read) as told:
        confirmed |= set(told.read().split())
    kept = set(Journal(path).labelled)
    assert confirmed <= kept, confirmed - kept
    new = kept - confirmed - typed
    assert len(new) <= 1, new
    typed |= new
print(len(confirmed))
"""


def test_a_hundred_kills_lose_no_confirmed_answer(path):
    """At most the answer being typed, which may also have reached the disk."""
    done = subprocess.run(
        [sys.executable, "-c", _KILLS, path],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
