"""Contenders timed in alternating turns, since machines are noisy."""

import time


def measure(contenders, turns, steps):
    """Seconds a step of each, by turns, after one turn of each to warm up.

    Args:
      contenders: functions by name, each of which takes ``steps`` steps.
      turns: of each.
      steps: that a turn takes.
    """
    times = {name: [] for name in contenders}
    for turn in contenders.values():
        turn()
    for _ in range(turns):
        for name, turn in contenders.items():
            began = time.perf_counter()
            turn()
            times[name].append((time.perf_counter() - began) / steps)
    return times
