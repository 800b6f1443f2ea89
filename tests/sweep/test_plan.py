"""Sweep files: lists and grids, names of runs, faults."""

import pytest

from audiodd_jax.errors import UserError
from audiodd_jax.sweep import plan


def read(tmp_path, text):
    path = tmp_path / "sweep.py"
    path.write_text(text)
    return plan.read(path)


def test_a_grid_runs_all_combinations_named_by_what_varies(tmp_path):
    found = read(
        tmp_path,
        "COMMON = {'dataset': 'tones'}\n"
        "GRID = {'method': ['rfad', 'dm'], 'seed': range(2), 'samples_per_class': [5],"
        " 'config.optimizer.learning_rate': [0.03]}",
    )
    assert [one.name for one in found] == [
        "method=rfad,seed=0",
        "method=rfad,seed=1",
        "method=dm,seed=0",
        "method=dm,seed=1",
    ]
    assert found[1] == plan.Planned(
        "method=rfad,seed=1",
        "distill",
        (
            "--dataset=tones",
            "--method=rfad",
            "--seed=1",
            "--samples_per_class=5",
            "--config.optimizer.learning_rate=0.03",
        ),
    )


def test_a_list_has_commands_lists_booleans_and_names(tmp_path):
    found = read(
        tmp_path,
        "RUNS = [{'command': 'train', 'model': 'linear', 'fraction': 0.2},"
        " {'command': 'active', 'budgets': ['20%', '40%'], 'seed': None},"
        " {'name': 'my run/1', 'dataset': 'tones',"
        " 'config.coreset.learn_labels': False}]",
    )
    assert [one.command for one in found] == ["train", "active", "distill"]
    assert found[0].name == "command=train,model=linear,fraction=0.2"
    assert found[1].flags == ("--budgets=20%,40%",)
    assert found[2].name == "my_run_1"
    assert found[2].flags[-1] == "--config.coreset.learn_labels=false"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUNS = [", "is not a sweep file: SyntaxError"),
        ("import nothing_of_the_sort", "is not a sweep file: ModuleNotFoundError"),
        ("X = 1", "must define RUNS, a list of runs, or GRID"),
        ("RUNS = []; GRID = {}", "must define RUNS, a list of runs, or GRID"),
        ("RUNS = []", "has no run"),
        ("RUNS = [1]", "a list of dictionaries"),
        ("GRID = {'seed': 3}", "a dictionary of lists"),
        ("GRID = {'seed': []}", "has no run"),
        ("RUNS = [{'seed': 1}, {'seed': 1}]", "two runs are named run"),
        ("RUNS = [{'command': 'doctor'}]", "not 'doctor'"),
        ("RUNS = [{'workdir': 'x'}]", "workdir is set by the sweep"),
        ("RUNS = [{'steps': 0}]", "run run: loop.steps must be at least 1, not 0"),
        ("RUNS = [{'sead': 0}]", "run run: Unknown command line flag 'sead'"),
        ("RUNS = [{'dataset': 'tone'}]", "run run: "),
        ("RUNS = [{'config.loop.stps': 1}]", "there is no setting config.loop.stps"),
        ("RUNS = [{'seed': 'x'}]", "run run: "),
        ("RUNS = [{'name': 'logs'}]", "a run cannot be named logs"),
        ("RUNS = [{'name': 'status.md'}]", "a run cannot be named status.md"),
        ("import sys; sys.exit(3)", "is not a sweep file: SystemExit"),
    ],
)
def test_faults_are_reported_in_a_sentence(tmp_path, text, message):
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no sweep file"):
        plan.read(tmp_path / "none.py")
