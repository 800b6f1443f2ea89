"""Coresets of a size in all: their files, words, pictures and baselines."""

import json
import logging

import numpy as np
import pytest
from test_unequal_classes import flags, folder  # noqa: F401  (a fixture)

import audiodd_jax
from audiodd_jax import command_line
from audiodd_jax.commands import main
from audiodd_jax.coreset import subsets
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.forecast import workload

# Training clips: high 4, low 38, middle 4.
SIZES = [4, 7, 4]
SHORT = "high 4 of 5, middle 4 of 5; the other classes have the rest"


@pytest.fixture(scope="module")
def sized(folder):  # noqa: F811
    """Flags of a coreset of 15 spectrograms, 5 for each class if it had the clips."""
    return [*(f for f in flags(folder) if "samples_per_class" not in f), "--samples=15"]


def test_a_run_says_which_classes_are_short_and_is_evaluated(sized, tmp_path, capsys):
    run = tmp_path / "run"
    main.main(["distill", *sized, f"--workdir={run}"])
    out = capsys.readouterr().out
    assert "15 spectrograms, 4 to 7 per class" in out
    assert SHORT in out
    result = json.loads((run / "result.json").read_text())
    assert list(result["class_sizes"].values()) == SIZES
    assert result["samples_per_class"] == 5
    card = (run / "README.md").read_text()
    assert "4 to 7 spectrograms per class" in card
    assert SHORT in card
    coreset = audiodd_jax.load_coreset(run / "coreset.npz")
    assert np.bincount(coreset.classes).tolist() == SIZES
    main.main(["evaluate", f"--workdir={run}", "--against=random"])
    rows = json.loads((run / "evaluation" / "evaluation.json").read_text())
    assert [row["num_samples"] for row in rows] == [15, 15]
    report = tmp_path / "report"
    main.main(["report", str(run), f"--out={report}", "--galleries=0"])
    assert "rfad, 4 to 7 per class" in (report / "index.html").read_text()
    # The same size resumes, another is named.
    main.main(["distill", *sized, f"--workdir={run}"])
    with pytest.raises(audiodd_jax.UserError, match="samples was 15 and is now 16"):
        main.main(["distill", *sized, f"--workdir={run}", "--samples=16"])


def test_prepare_and_the_forecast_name_short_classes(sized, capsys):
    line = command_line.parse("distill", sized)
    work = workload.measure(line.configure_defaults())
    assert work.sizes.s == 15
    assert list(work.sizes.per_class) == SIZES
    assert SHORT in work.shortage
    settings = [f for f in sized if not f.startswith("--samples")]
    main.main(["prepare", *settings, "--config.coreset.samples=15"])
    assert SHORT in capsys.readouterr().out


def test_two_sizes_are_refused(sized):
    for both in (["--samples_per_class=2"], ["--config.coreset.samples_per_class=2"]):
        line = command_line.parse("distill", [*sized, *both])
        with pytest.raises(audiodd_jax.UserError, match="exclude each other"):
            line.configure_defaults()


def test_real_clips_have_the_same_shapes(sized, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("audiodd_jax"), "propagate", True)
    config = command_line.parse("distill", sized).configure_defaults()
    data = audiodd_jax.prepare(config)
    for subset, expected in (
        (Subset("random", samples=15), SIZES),
        (Subset("random", samples=12, spread="proportional"), [1, 10, 1]),
        (Subset("random", per_class=5), [4, 5, 4]),
        (Subset("random", per_class=(0, 6, 9)), [0, 6, 4]),
    ):
        rows = subsets.choose(subset, data, None, 0)
        counts = np.bincount(np.asarray(data.train.labels)[rows], minlength=3)
        assert counts.tolist() == expected
    assert "middle 4 of 9" in caplog.text
