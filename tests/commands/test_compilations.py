"""Runs with other seeds, rates and lengths start with the programs of earlier ones."""

import collections

import jax
import pytest
from command_line import TINY

from audiodd_jax.commands import main

_events = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: _events.update([event]))


@pytest.fixture
def compiled():
    """``compiled(command)``: how many programs a new process would compile.

    Every program is kept, as for users (``commands.common.keep_compiled``).
    """
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)

    def count(*command):
        jax.clear_caches()
        _events.clear()
        main.main(list(command))
        assert _events["/jax/compilation_cache/compile_requests_use_cache"] > 20
        return _events["/jax/compilation_cache/cache_misses"]

    yield count
    jax.config.update(name, before)


@pytest.mark.slow
def test_another_seed_rate_and_length_compile_nothing(tmp_path, compiled):
    run, other, *outs = (tmp_path / name for name in "abcd")
    small = ["--samples_per_class=1", "--config.evaluation.seeds=1"]
    small += ["--config.network.depth=1", "--config.rfad.networks=1"]
    distill = ["distill", "--dataset=tones", *TINY, *small]
    compiled(*distill, "--steps=4", f"--workdir={run}")
    rates = ["--config.optimizer.learning_rate=1e-2", "--steps=6", "--seed=1"]
    assert compiled(*distill, *rates, f"--workdir={other}") == 0
    evaluate = ["evaluate", f"--workdir={run}", "--protocol=linear"]
    evaluate += ["--num_seeds=1", "--config.training.log_every=2"]
    compiled(*evaluate, "--steps=4", f"--out={outs[0]}")
    rates = ["--config.training.learning_rate=1e-3", "--steps=6", "--config.seed=1"]
    assert compiled(*evaluate, *rates, f"--out={outs[1]}") == 0
