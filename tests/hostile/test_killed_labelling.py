"""SIGKILLs of ``audiodd label --serve`` at random moments lose no answer."""

import http.client
import json
import os
import threading
import time
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import labelling
import numpy as np
import pytest
from test_killed import ForkServer

from audiodd_jax.data import datasets
from audiodd_jax.data.answers import Journal

pytest.importorskip("bottle")
pytest.importorskip("waitress")

KILLS = int(os.environ.get("AUDIODD_TEST_LABEL_KILLS", "100"))
CLASSES = tuple(labelling.PITCHES)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def fork_server(log, tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIODD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AUDIODD_TEST_INSTANT_LABELLING", "1")
    started = ForkServer(log)
    yield started
    started.close()


def request(address, path, body=None):
    """Returns the page's reply."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        token, text = parse_qs(parts.query)["token"][0], body and json.dumps(body)
        connection.request("POST" if text else "GET", f"/{path}?token={token}", text)
        reply = connection.getresponse()
        content = json.loads(reply.read())
        assert reply.status == 200, content
        return content
    finally:
        connection.close()


def address_in(log, start, thread):
    """The address that the command has printed; None if it was killed before."""
    while thread.is_alive():
        text = log.read_bytes()[start:].decode() if log.exists() else ""
        if "Open " in text and "\n" in text.split("Open ", 1)[1]:
            return text.split("Open ", 1)[1].split("\n")[0]
        time.sleep(0.01)
    return None


class Lived(NamedTuple):
    """The state in which a killed command left its run.

    Attributes:
      sent: the answer whose confirmation did not come; None: all are confirmed.
      shown: when it first showed a recording; None: never.
      is_complete: whether all recordings are answered.
    """

    confirmed: dict
    sent: tuple | None = None
    shown: float | None = None
    is_complete: bool = False


def answer_all(address, rng):
    """Answers until the server is gone."""
    lived, sent = Lived({}), None
    try:
        state = request(address, "state")
        while not lived.is_complete:
            if clip := state["clip"]:
                lived = lived._replace(shown=lived.shown or time.monotonic())
                label = CLASSES[rng.integers(len(CLASSES))]
                sent = (clip, (label,))
                given = {"clip": clip, "version": state["version"], "labels": [label]}
                state = request(address, "answer", given)
                lived.confirmed[clip], sent = (label,), None
            else:
                is_complete = state["answered"] == state["budget"]
                lived = lived._replace(is_complete=is_complete)
                state = request(address, "state")
            time.sleep(0.05 * rng.random())
    except (OSError, http.client.HTTPException):
        pass
    return lived._replace(sent=sent)


def killed_once(fork_server, log, argv, moment, rng):
    """Labels until the command is killed."""
    offset, ended = log.stat().st_size if log.exists() else 0, []
    work = lambda: ended.append(fork_server.run(argv, moment))
    run, began, lived = threading.Thread(target=work), time.monotonic(), Lived({})
    run.start()
    if address := address_in(log, offset, run):
        lived = answer_all(address, rng)
    run.join()
    assert ended[0]["killed"], log.read_text()[-2000:]
    return lived._replace(shown=lived.shown and lived.shown - began)


@pytest.mark.slow
@pytest.mark.nightly  # minutes
def test_a_hundred_kills_lose_at_most_the_answer_being_typed(
    fork_server, log, tmp_path
):
    """Each start continues the session; trainings take no time."""
    sounds = labelling.sounds(tmp_path / "sounds", 40)
    rng, killed, answered, sessions = np.random.default_rng(KILLS), 0, 0, 0
    usual = 3.0  # seconds until a recording shows
    while killed < KILLS:
        sessions, known, is_complete = sessions + 1, {}, False
        workdir = tmp_path / f"s{sessions}"
        argv = ["label", sounds, "--serve", f"--classes={','.join(CLASSES)}"]
        argv += [*labelling.FLAGS, f"--workdir={workdir}"]
        while killed < KILLS and not is_complete:
            # Some kills hit the start.
            moment = usual * (0.6 + 0.9 * rng.random()) + 2 * rng.random()
            lived = killed_once(fork_server, log, argv, moment, rng)
            usual, killed = lived.shown or 1.5 * usual, killed + 1
            is_complete, sent = lived.is_complete, lived.sent
            known |= lived.confirmed
            answered += len(lived.confirmed)
            path = workdir / datasets.JOURNAL
            kept = dict(Journal(path, CLASSES).labelled) if path.exists() else {}
            if sent and kept.get(sent[0]) == sent[1]:
                known[sent[0]] = sent[1]  # on the disk, but not yet confirmed
            assert kept == known
    print(f"{killed} kills, {answered} answers, {sessions} sessions")
    assert answered > killed
