"""Waits are shown on a terminal, second by second, and nowhere else."""

import io
import sys
import threading
import time

import pytest

from audiodd_jax.runtime import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_a_wait_is_shown_only_on_a_terminal(kind, monkeypatch):
    monkeypatch.setattr(progress, "_TICK", 0.02)
    monkeypatch.setattr(sys, "stderr", kind())
    before = threading.active_count()
    with progress.waiting("scoring"):
        time.sleep(0.3)
    shown = sys.stderr.getvalue().count("scoring, 00:00")
    # Drawn once, and again as the seconds go by.
    assert shown >= 3 if kind is Terminal else shown == 0
    assert threading.active_count() <= before + 1  # tqdm's own


def test_a_bar_is_closed_at_the_end_of_its_block(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress.bar(5, desc="x") as bar:
        bar.update(3)
    assert "3/5" in sys.stderr.getvalue()
    assert bar.disable


def test_a_log_gets_lines_with_steps_rate_and_time_left(monkeypatch, caplog):
    for name, value in (("_TICK", 0.02), ("_FIRST_LINE", 0.1), ("_BETWEEN_LINES", 0.1)):
        monkeypatch.setattr(progress, name, value)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level("INFO", "audiodd_jax")
    with progress.bar(4, desc="scoring", unit="seed") as bar:
        time.sleep(0.3)
        bar.update(3)
        bar.set_postfix_str("loss=0.1")
        time.sleep(0.3)
    with progress.waiting("choosing"):
        time.sleep(0.2)
    first, *_, last, wait = caplog.messages
    assert first == "scoring: 0 of 4 seeds, 00:00 so far"
    assert last.startswith("scoring: 3 of 4 seeds, ")
    assert last.endswith("seed/s, 00:00 left, loss=0.1")
    assert wait == "choosing, 00:00"


def test_a_short_wait_logs_nothing(monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level("INFO", "audiodd_jax")
    with progress.bar(2, desc="scoring") as bar:
        bar.update(2)
    assert not caplog.messages


def test_a_notebook_gets_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    with progress.bar(5, desc="x") as bar:
        bar.update(3)
    assert "3/5" in sys.stderr.getvalue()
