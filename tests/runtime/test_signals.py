import os
import signal

import pytest

from audiodd_jax.runtime import signals


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signals_wait_until_the_state_is_saved(name):
    signum = getattr(signal, name)
    # The tests' own process may have been told to ignore it (nohup, a job of a shell).
    before = signal.signal(signum, signal.SIG_DFL)
    try:
        with signals.deferred_signals() as stop_signal:
            os.kill(os.getpid(), signum)
            assert stop_signal() == signum
    finally:
        signal.signal(signum, before)


def test_an_ignored_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with signals.deferred_signals() as stop_signal:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop_signal()
        assert signal.SIGHUP not in signals.stop_signals()
    finally:
        signal.signal(signal.SIGHUP, before)
