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
