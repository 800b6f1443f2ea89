from pathlib import Path

import pytest

from audiodd_jax.report import cards
from audiodd_jax.report.runs import Run


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("--data_dir=/home/me/secret/sounds", "--data_dir=sounds"),
        ("/home/me/secret/sounds", "sounds"),
        ("--data_dir=../secret/sounds", "--data_dir=sounds"),
        ("--data_dir=~/secret/sounds", "--data_dir=sounds"),
        ("--config.coreset.init=/secret/a=b/c.npz", "--config.coreset.init=c.npz"),
        ("--config.rfad.loss=platt", "--config.rfad.loss=platt"),
        ("--dataset", "--dataset"),
    ],
)
def test_cards_name_no_folders(argument, shown):
    assert cards._without_folders(argument) == shown


@pytest.mark.parametrize("are_official", [True, False])
def test_a_card_of_folds_says_whose_folds_they_are(are_official):
    names = ("accuracy", "balanced_accuracy", "macro_f1")
    scores = {
        f"{start}{name}": 0.5 for name in names for start in ("test_", "start_test_")
    }
    scores |= {"macro_f1": 0.5, "start_macro_f1": 0.5}
    result = {
        "dataset": "my birds",
        "dataset_version": "local",
        "licence": "mine",
        "method": "rfad",
        "samples_per_class": 1,
        "protocol": "krr",
        "seed": 0,
        "start": "real",
        "groups": "24 groups, none divided",
        **scores,
        **{f"{name}_std": 0.1 for name in scores},
        "folds": [{"fold": fold, "num_train": 9, **scores} for fold in (1, 2)],
    }
    card = cards.folds(result, are_official)
    kind = "official folds" if are_official else "folds that the data names"
    assert f"Each of the 2 {kind} is the test fold once" in card
    assert "- Groups: 24 groups, none divided" in card


def test_a_run_without_a_result_has_the_name_of_its_folder():
    config = {"data": {"name": "folder", "data_dir": "/x/my birds"}, "seed": 0}
    assert Run(Path("r"), "train", config).title == "my birds"
    assert Run(Path("r"), "train", {"data": {"name": "esc50"}}).title == "esc50"
    assert Run(Path("r"), "", {"data": {"name": ""}, "seed": ""}).title == ""
