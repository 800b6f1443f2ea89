"""``experiments/outcomes.py`` shares runs between calls, or records a reason."""

import json

import pytest

from audiodd_jax.errors import InUseError, UserError


def test_an_impossible_run_is_recorded_and_the_rest_continues(found_of, outcome):
    found, known = found_of("--dataset=esc50"), outcome({960: 0.6}, 30.0)

    def refuses(seed):
        raise UserError("a class has 3 clips")

    found.runs.everything = refuses
    found.runs.choice = lambda name, seed: known
    found.ask("everything", 0)
    found.ask("choice", "bald", 0)
    assert found.reasons == {("everything", 0): "not run: a class has 3 clips"}
    assert found.results == {("choice", "bald", 0): known}
    # Another call reads the finished run and does not repeat it.
    again = found_of("--dataset=esc50")
    again.runs.choice = refuses
    again.ask("choice", "bald", 0)
    assert again.results[("choice", "bald", 0)].accuracies == {960: 0.6}
    assert not again.reasons


def test_a_table_refuses_results_of_other_settings(found_of, outcome):
    found = found_of("--dataset=esc50")
    found.runs.everything = lambda seed: outcome({1440: 0.7}, 10.0)
    found.ask("everything", 0)
    for other in ("--training_steps=7", "--sizes=default"):
        with pytest.raises(UserError, match=r"other settings, .*: choose another"):
            found_of("--dataset=esc50", other)
    # Naming the recipe's default number of steps does not change the settings.
    again = found_of("--dataset=esc50", "--training_steps=500")
    assert again.results.keys() == {("everything", 0)}
    kept = json.loads(found.file.read_text())
    unknown = [[["everything", 0], [0.7]], ["everything"], 3]
    foreign = [json.dumps({**kept, "outcomes": [entry]}) for entry in unknown]
    for damaged in ("[]", '{"outcomes": []}', "{", *foreign):
        found.file.write_text(damaged)
        with pytest.raises(UserError, match=r"outcomes\.json is damaged"):
            found_of("--dataset=esc50")


def test_concurrent_calls_share_their_results(found_of, script, outcome):
    one, other = found_of("--dataset=esc50"), found_of("--dataset=esc50")
    names = script.request().acquisitions
    outcomes = {
        "bald": outcome({320: 0.6, 960: 0.6}, 30.0, None, {320: 0.5}),
        "random": outcome({320: 0.4}, 30.0, None, {320: 0.6}),
    }

    def held(*asked):
        raise InUseError("another process is writing a folder")

    one.runs.choice = lambda name, seed: outcomes[name]
    other.runs.choice = held
    other.ask("choice", "bald", 0)
    reason = other.reasons["choice", "bald", 0]
    assert reason == "not run: another call runs it"
    # The other call adds a result, and later results of the first call are kept too.
    other.runs.choice = lambda name, seed: outcomes[name]
    other.ask("choice", "random", 0)
    # The best function is unknown while another call is running one.
    assert other.best_function(names, "20%", 0) is None
    one.ask("choice", "bald", 0)
    other.runs.choice = one.runs.choice = held
    other.ask("choice", "bald", 0)
    one.ask("choice", "random", 0)
    for found in (one, other, found_of("--dataset=esc50")):
        for name, known in outcomes.items():
            assert found.results["choice", name, 0].accuracies == known.accuracies
        # Validation clips decide, among the functions that reached the share.
        assert found.best_function(names, "20%", 0) == "random"
        assert found.best_function(names, "60%", 0) is None
    # A coreset that another call is distilling is not started at other sizes.
    other.runs.bought, asked = held, set(other.reasons)
    script.ask_bought(other, script.request(), "20%", 0)
    assert set(other.reasons) - asked == {("bought", "random", "20%", 5, 0)}


def test_runs_that_do_not_fit_the_hours_are_reported(found_of, known):
    found = found_of("--dataset=esc50", results=known, hours=20 / 3600)
    found.runs.everything = lambda seed: found.results["everything", 0]
    found.runs.choice = found.runs.coreset = None
    # Runs of the same kind took 10 s and 30 s.
    found.ask("everything", 1)
    found.ask("choice", "bald", 1)
    assert ("everything", 1) in found.results
    reason = found.reasons[("choice", "bald", 1)]
    assert reason == "not run: no time (about 30 s)"


def test_unknown_running_times_are_not_estimated(found_of):
    found = found_of("--dataset=esc50", hours=1e-9)
    found.runs.everything = None
    found.ask("everything", 0)
    assert found.reasons["everything", 0] == "not run: no time"
