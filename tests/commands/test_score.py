"""``audiodd score``, from end to end on small tones."""

import csv
import dataclasses
import functools
import json
import shutil
import signal

import jax
import numpy as np
import pytest
from command_line import TINY_SETTINGS, fails

import audiodd_jax
from audiodd_jax.active_learning import rivals
from audiodd_jax.commands import main, score
from audiodd_jax.features import dataset
from audiodd_jax.report import score_table
from audiodd_jax.runtime.signals import Interrupted
from audiodd_jax.training import fit, rate_search

LINEAR = ["--model=linear", "--steps=3", "--config.training.log_every=3"]
SETTINGS = {"steps": 3, "training__log_every": 3}


@pytest.fixture(scope="module", autouse=True)
def few():
    """Fewer trainings: one rate, and one acquisition function."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rate_search, "MULTIPLES", (1.0,))
        patch.setattr(rivals, "functions_of", lambda model: ["medoids"])
        yield


@pytest.fixture
def only_hard_labels(monkeypatch):
    monkeypatch.setattr(score, "_kinds", lambda coreset: (["hard"], []))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIODD_CACHE", str(cache))
        yield tmp_path_factory.mktemp("score")


def random_clips(name, **more):
    """Two random clips per class, with views."""
    changes = {"method": "random", "teacher__networks": 1, "teacher__steps": 5}
    return audiodd_jax.for_dataset(name, **{**TINY_SETTINGS, **changes, **more})


@pytest.fixture(scope="module")
def run(root):
    return audiodd_jax.distill(random_clips("tones"), root / "run")


@pytest.fixture(scope="module")
def printed(run):
    """The text that the command printed; its files are in the run directory."""
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *text, **_: lines.extend(text))
        main.main(["score", str(run.path), "--num_seeds=1", *LINEAR])
    return "\n".join(map(str, lines))


@pytest.fixture(scope="module")
def scored(run, printed):
    return score_table.read(run.path / "score")


def test_every_arm_has_the_same_bytes_steps_and_rates(run, scored):
    assert len(scored.arms) == 1 + 3 * 4
    images = run.coreset.images.nbytes
    expected = {"hard": 20, "soft": 2 * 20 * 10, "views": 2 * 60 * 10}
    for arm in scored.arms:
        assert len(arm.scores.values) == 1
        assert list(arm.validation) == [f"{arm.learning_rate:g}"]
        if arm.learns_from != "all":
            assert arm.num_bytes == images + expected[arm.labels]
    units = (run.path / "score" / "linear").glob("*/config.json")
    configs = [json.loads(unit.read_text()) for unit in units]
    assert {config["training"]["steps"] for config in configs} == {3}


def test_differences_and_fractions_are_those_of_the_arms(run, scored):
    values = json.loads((run.path / "score" / "score.json").read_text())
    of = lambda labels, name: np.array(scored.arm("linear", labels, name).scores.values)
    for row in values["differences"]:
        expected = of(row["labels"], "coreset") - of(
            row["labels"], row["coreset_minus"]
        )
        np.testing.assert_allclose(row["each_seed"], expected, atol=1e-9)
    found = values["dd_ranking"]["linear"]
    hlr = of("hard", "all") - of("hard", "coreset")
    ior = of("views", "coreset") - of("views", "random")
    np.testing.assert_allclose(found["HLR"]["each_seed"], hlr, atol=1e-9)
    np.testing.assert_allclose(found["IOR"]["each_seed"], ior, atol=1e-9)
    alpha = (ior - hlr) / 2
    lrs = (np.exp(alpha) - np.exp(-1)) / (np.e - np.exp(-1))
    np.testing.assert_allclose(found["LRS"]["each_seed"], lrs, atol=1e-9)


def test_the_table_is_printed_written_and_reported(run, printed, scored, root):
    text = (run.path / "score" / "score.md").read_text()
    for line in score_table.summary(scored):
        assert line in printed
        assert line in text
    assert "coreset minus this (points)" in printed
    assert (run.path / "score" / "score.png").stat().st_size > 5_000
    main.main(["report", str(run.path), f"--out={root / 'report'}", "--galleries=0"])
    page = (root / "report" / "index.html").read_text()
    assert '<h2 id="score">Score</h2>' in page
    assert "one soft label" in page
    (file,) = (root / "report" / "tables").glob("score_of_run*.csv")
    with file.open() as rows:
        assert len(list(csv.DictReader(rows))) == len(scored.arms)


def test_a_finished_score_trains_nothing(
    run, scored, root, only_hard_labels, monkeypatch
):
    monkeypatch.setattr(fit, "fit", lambda *_: pytest.fail("a network was trained"))
    folder = root / "again"
    shutil.copytree(run.path / "score" / "linear", folder / "linear")
    again = audiodd_jax.score(run.path, folder, ["linear"], num_seeds=1, **SETTINGS)
    assert [arm.scores.values for arm in again.arms] == [
        arm.scores.values for arm in scored.arms if arm.labels == "hard"
    ]


def test_an_interrupted_score_resumes_to_the_same_numbers(
    run, scored, root, only_hard_labels, monkeypatch
):
    """With another acquisition function, which needs a network, and two seeds."""
    monkeypatch.setattr(rivals, "functions_of", lambda model: ["margin"])
    given = (run.coreset, root / "cut", ["linear"])
    resumed = functools.partial(audiodd_jax.score, *given, num_seeds=2, **SETTINGS)
    real, left = fit.fit, [7]

    def cut(*arguments):
        left[0] -= 1
        if not left[0]:
            raise Interrupted(signal.SIGTERM, 0)
        return real(*arguments)

    monkeypatch.setattr(fit, "fit", cut)
    with pytest.raises(Interrupted):
        resumed()
    assert not (root / "cut" / "score.json").exists()
    found = resumed()
    hard = [arm for arm in scored.arms if arm.labels == "hard"]
    *found, chosen = found.arms
    assert chosen.learns_from == "margin"
    for arm, other in zip(found, hard, strict=False):
        assert arm.scores.values[:1] == other.scores.values
        assert arm.validation == other.validation
        units = (root / "cut" / "linear").glob(f"{arm.learns_from}-hard-seed*")
        assert len(list(units)) == len(arm.scores.values) == 2


@pytest.mark.slow
def test_no_choice_reads_the_test_clips(run, scored, root, monkeypatch):
    load = dataset.load

    def blinded(*arguments, **options):
        data = load(*arguments, **options)
        shape, key = data.test.labels.shape, jax.random.key(7)
        test = data.test._replace(labels=jax.random.randint(key, shape, 0, 10))
        return dataclasses.replace(data, test=test)

    monkeypatch.setattr(dataset, "load", blinded)
    out = root / "blind"
    blind = audiodd_jax.score(run.coreset, out, ["linear"], num_seeds=1, **SETTINGS)
    choices = lambda arms: [
        (a.learns_from, a.validation, a.learning_rate) for a in arms
    ]
    assert choices(blind.arms) == choices(scored.arms)
    assert blind.arms[0].scores.values != scored.arms[0].scores.values


@pytest.mark.slow
def test_packed_clips_with_tags_are_scored_by_mean_average_precision(root):
    packed = {"coreset__factor": "2x2", "coreset__storage": "int8"}
    config = random_clips("tones_tagged", **packed)
    run = audiodd_jax.distill(config, root / "tagged")
    out = run.path / "score"
    scored = audiodd_jax.score(run.path, out, ["linear"], num_seeds=1, **SETTINGS)
    assert scored.metric == "mean average precision"
    assert len(scored.arms) == 13
    found = score_table.ranking(scored, "linear")
    everything = scored.arm("linear", "hard", "all").scores
    coreset = scored.arm("linear", "hard", "coreset").scores
    assert everything.tags is not None
    assert found["HLR"].values == (everything.mean - coreset.mean,)
    sizes = {"hard": 20, "soft": 80 * 10, "views": 240 * 10}
    for labels, size in sizes.items():
        arms = [scored.arm("linear", labels, n) for n in ("coreset", "random")]
        expected = run.coreset.file_bytes.images + size
        assert {arm.num_bytes for arm in arms if arm.num_bytes} == {expected}


def test_a_coreset_without_views_has_two_kinds_of_labels(run, root, capsys):
    file = root / "plain.npz"
    dataclasses.replace(run.coreset, teacher_labels=None).save(file)
    main.main(["score", str(file), "--dry_run", "--model=linear,convnet"])
    told = capsys.readouterr().out
    assert "The coreset has no stored views, so no row has them." in told
    assert "9 arms, at most 33 trainings of 300 steps each" in told
    assert not (root / "runs").exists()


def test_refusals(run, root, capsys):
    none = "--config.data.validation_fraction=0"
    said = fails(capsys, "score", str(run.path), none, f"--out={root / 'none'}")
    assert "raise --config.data.validation_fraction" in said
    said = fails(capsys, "score", str(run.path), "--model=vgg")
    assert said.startswith("unknown model 'vgg'")
    said = fails(capsys, "score")
    assert said == "usage: audiodd score CORESET_OR_RUN [flags]"
    said = fails(capsys, "score", str(root))
    assert "coreset.npz" in said
    file = run.path / "score" / "score.json"
    before = file.read_text()
    file.write_text("{}")
    said = fails(capsys, "report", str(run.path), f"--out={root / 'damaged'}")
    file.write_text(before)
    assert "is damaged: it is not a score" in said
