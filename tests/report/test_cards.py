import pytest

from audiodd_jax.report import cards


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
