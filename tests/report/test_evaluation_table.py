from audiodd_jax.report import evaluation_table
from audiodd_jax.report.evaluation_table import Row
from audiodd_jax.training.scores import Evaluation

MEANS = {"coreset": 0.8, "random": 0.5, "random+teacher": 0.75, "all": 0.9}


def test_the_gap_closed_is_a_share():
    assert abs(evaluation_table.gap_closed(MEANS) - 0.75) < 1e-12
    assert abs(evaluation_table.gap_closed(MEANS, "random+teacher") - 0.625) < 1e-12
    assert evaluation_table.gap_closed({**MEANS, "coreset": 0.4}) < 0
    assert evaluation_table.gap_closed({"coreset": 0.8, "random": 0.5}) is None
    assert evaluation_table.gap_closed({**MEANS, "all": 0.5}) is None


def rows_of(means):
    return [
        Row("convnet", name, 10, 0.1, Evaluation("convnet", (mean,)), 1.0)
        for name, mean in means.items()
    ]


def test_the_improvement_is_over_clips_with_the_same_labels():
    (sentence,) = evaluation_table.summary(rows_of(MEANS))
    assert sentence.startswith("convnet: +5.0 points over random clips with the same")
    (hard,) = evaluation_table.summary(rows_of({"coreset": 0.8, "random": 0.5}))
    assert hard == "convnet: +30.0 points over random clips"
    assert evaluation_table.summary(rows_of({"coreset": 0.8})) == []


def test_tables_show_both_gains():
    rows = rows_of(MEANS)
    table = evaluation_table.render(rows)
    assert "75 %" in table
    assert "62 %" in table
    assert "real clips, random, teacher's labels" in table
    (sentence,) = evaluation_table.summary(rows)
    assert sentence == (
        "convnet: +5.0 points over random clips with the same teacher's labels; "
        "75 % of the gap between random and all clips"
    )
    assert "gap closed" not in evaluation_table.render(rows[:2])
