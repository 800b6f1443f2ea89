"""Timing of contenders in alternating turns, since machines are noisy."""

import time


def measure(contenders, turns, steps):
    """Returns the seconds per step of each turn, after one warm-up turn each.

    Args:
      contenders: Functions by name; each takes ``steps`` steps per call.
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
