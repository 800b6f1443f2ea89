"""The command line: answers without JAX, whole runs, and one sentence a fault."""

import json
import re
import subprocess
import sys
import time

import numpy as np
import published
import pytest
from command_line import FEATURES, TINY, fails

import audiodd_jax
from audiodd_jax.commands import main


def audiodd_without(modules, *arguments, cwd=None):
    """Runs a command in a process of its own that must not import these modules."""
    code = (
        "import sys; from audiodd_jax.commands import main; main.main(sys.argv[1:]);"
        f"assert not {set(modules)!r} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("arguments", [["help"], ["distill", "--help"], []])
def test_help_answers_before_jax_is_imported(arguments):
    times = []
    for _ in range(3):
        began = time.perf_counter()
        done = audiodd_without(["jax", "numpy", "tensorflow"], *arguments)
        times.append(time.perf_counter() - began)
    assert "distill" in done.stdout
    assert min(times) < 1.0


def test_help_describes_every_setting(capsys):
    main.main(["distill", "--help"])
    text = capsys.readouterr().out
    for name in audiodd_jax.Config().__dataclass_fields__:
        assert f"--config.{name}" in text
    line = next(li for li in text.splitlines() if "config.rfad.regularizer" in li)
    assert "mean diagonal" in line


def test_a_run_from_files_to_a_scored_coreset(capsys, sound_folder, tmp_path):
    """prepare, distill, again, evaluate: as a user would, on files."""
    data = ["--dataset=folder", f"--data_dir={sound_folder}"]
    main.main(["prepare", *data, *FEATURES])
    prepared = capsys.readouterr().out
    assert re.search(r"clips +24\b", prepared)
    assert "low" in prepared

    run = tmp_path / "run"
    command = ["distill", *data, *TINY, "--samples_per_class=2", f"--workdir={run}"]
    done = audiodd_without(["tensorflow"], *command)
    assert "test accuracy, distilled" in done.stdout
    for name in (
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "coreset.npz",
        "result.json",
        "README.md",
        "figures/coreset.png",
        "figures/curves.png",
        "checkpoints",
    ):
        assert (run / name).exists(), name
    result = json.loads((run / "result.json").read_text())
    assert result["samples_per_class"] == 2
    assert result["num_samples"] == 4
    assert result["fraction_of_train"] == pytest.approx(4 / result["num_train"])
    coreset = audiodd_jax.load_coreset(run / "coreset.npz")
    assert coreset.class_names == ("high", "low")
    assert str(sound_folder) not in json.dumps(coreset.metadata)
    card = (run / "README.md").read_text()
    assert f"{100 * result['fraction_of_train']:.2f} %" in card

    main.main(command)
    assert "finished already" in capsys.readouterr().out

    main.main(["evaluate", f"--workdir={run}"])
    accuracy = re.search(r"test accuracy +(\S+)", capsys.readouterr().out)[1]
    assert float(accuracy) == pytest.approx(100 * result["test_accuracy"], abs=0.06)

    other = ["evaluate", f"--coreset={run / 'coreset.npz'}", "--dataset=tones"]
    sentence = fails(capsys, *other)
    assert f"this coreset of {sound_folder.name} has the classes high, low" in sentence


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("dm", "k_center")],
)
def test_other_methods_write_the_same_files(capsys, sound_folder, tmp_path, method):
    run = tmp_path / "run"
    command = ["distill", "--dataset=folder", f"--data_dir={sound_folder}", *TINY]
    command += [f"--config.method={method}", "--samples_per_class=2"]
    command += ["--config.coreset.factor=2", "--config.matching.width=4"]
    main.main([*command, f"--workdir={run}"])
    coreset = audiodd_jax.load_coreset(run / "coreset.npz")
    assert coreset.images.shape == (4, 16, 16, 1)
    assert coreset.metadata["method"] == method
    assert coreset.unpack().images.shape == (8, 16, 16, 1)
    np.testing.assert_allclose(coreset.labels, [[0.5, -0.5]] * 2 + [[-0.5, 0.5]] * 2)
    result = json.loads((run / "result.json").read_text())
    assert result["method"] == method
    assert result["stored_values"] == 4 * 16 * 16 + 8
    assert result["peak_memory_bytes"] > 1e8
    card = (run / "README.md").read_text()
    assert "Each stored image holds 2 spectrograms of 1/2 of the frames" in card
    assert (run / "figures/coreset.png").exists()
    is_learnt = method == "dm"
    assert ("selected clips" in card) != is_learnt
    assert (run / "figures/curves.png").exists() == is_learnt
    capsys.readouterr()
    main.main(["evaluate", f"--workdir={run}"])
    accuracy = re.search(r"test accuracy +(\S+)", capsys.readouterr().out)[1]
    assert float(accuracy) == pytest.approx(100 * result["test_accuracy"], abs=0.06)


def test_a_dry_run_estimates_the_cost_and_writes_nothing(tmp_path):
    """It imports none of what takes a second of three: Matplotlib and scipy.stats."""
    run = audiodd_without(
        ["matplotlib", "scipy.stats", "tensorflow"],
        "distill",
        "--dataset=tones",
        *TINY,
        "--num_devices=4",
        "--precision=bfloat16",
        "--config.rfad.kernel_precision=float64",
        "--dry_run",
        cwd=tmp_path,
    )
    told = dict(re.split(r"  +", line, maxsplit=1) for line in run.stdout.splitlines())
    assert told["coreset"] == "100 spectrograms of 16 x 16, 10 classes"
    assert told["random network"].endswith("bfloat16")
    assert told["kernels"] == "32 x 100 and 100 x 100, float64"
    assert told["devices"] == "4 x cpu: 2 share 2 networks, 2 the batch"
    assert re.search(r"GB per step, 0\.\d+ GB at the peak", told["memory"])
    assert told["communication"].endswith("MB per step and device")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["distil"], "there is no command 'distil'; did you mean distill?"),
        (["distill", "--dataset=tone"], "unknown dataset 'tone'; did you mean"),
        (["prepare", "--dataset=zzz"], "choose from tones, tones_tagged, spoken_digit"),
        (["prepare", "--dataset=speech_command"], "did you mean speech_commands"),
        (["prepare", "--variant=v0.02"], "tones has no variant 'v0.02'"),
        (["prepare", "--dataset=urbansound8k"], "by this program: fill in the form"),
        (["prepare", "--fold=none"], "--fold is the number of a fold, or all"),
        (["prepare", "--config.data.storage=disk"], "data.storage must be auto or dev"),
        (["prepare", "--config.data.processes=-1"], "processes must be at least 0"),
        (["distill", "--config.augment.background=0.5"], "tones does not have"),
        (["distill", "--preset=fast"], "unknown preset 'fast'; choose from default"),
        (["distill", "--steps=0"], "loop.steps must be at least 1, not 0"),
        (["distill", "--steps=many"], "flag --steps=many"),
        (["distill", "--stepz=1"], "Unknown command line flag 'stepz'"),
        (["distill", "tones"], "unexpected argument 'tones'"),
        (["distill", "--samples_per_class=0"], "samples_per_class must be at least 1"),
        (["distill", "--config.loop.stepz=1"], "did you mean loop.steps?"),
        (["distill", "--config.loop.steps=x"], "flag --config.loop.steps=x"),
        (["distill", "--config.loop.steps", "3"], "with an equals sign"),
        (["distill", "--config.rfad.loss=hinge"], "rfad.loss must be mse or platt"),
        (["distill", "--precision=int8"], "precision must be float32 or tf32 or bf"),
        (["distill", "--num_devices=0"], "--num_devices must be at least 1, not 0"),
        (["prepare", "--num_devices=99"], "--num_devices must be 1 to"),
        (["distill", "--process_id=0"], "--process_id go together"),
        (
            ["distill", "--method=kop"],
            "method must be rfad or kip or frepo or dc or dsa",
        ),
        (
            ["distill", "--method=dc", "--config.coreset.learn_labels=true"],
            "dc has fixed labels and learns images only: coreset.learn_labels is for",
        ),
        (
            ["distill", "--config.coreset.factor=0"],
            "coreset.factor must be a number of",
        ),
        (["distill", "--config.coreset.factor=7"], "does not divide the 64 frames"),
        (["distill", "--method=herding", "--dry_run"], "there is no step to forecast"),
        (["distill", "--dataset=folder"], "needs --data_dir"),
        (["distill", "--dataset=folder", "--data_dir=/nowhere"], "neither a folder"),
        (["distill", "--fold=3"], "needs data with folds"),
        (["evaluate"], "evaluate needs either --workdir or --coreset"),
        (["evaluate", "--coreset=/nowhere.npz"], "there is no coreset /nowhere.npz"),
        (["evaluate", "--workdir=x", "--protocol=cnn"], "unknown protocol 'cnn'"),
    ],
)
def test_bad_input_is_one_sentence(capsys, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert sentence in fails(capsys, *arguments)
    assert not list(tmp_path.rglob("coreset.npz"))


def test_a_refused_run_leaves_no_folder_that_blocks_the_next(capsys, tmp_path):
    run = tmp_path / "run"
    arguments = ["distill", *TINY, f"--workdir={run}"]
    settings = (*arguments, "--config.coreset.samples_per_class=0")
    sentence = fails(capsys, *settings, "--samples=3")
    assert "samples=3, but each of the 10 classes" in sentence
    # Another size is another configuration, but nothing was started yet.
    main.main([*arguments, "--samples_per_class=1"])
    assert (run / "coreset.npz").exists()


def test_bad_sounds_are_one_sentence(capsys, sound_folder, tmp_path):
    (sound_folder / "low" / "03.wav").write_bytes(b"RIFF" + bytes(20))
    arguments = ["distill", "--dataset=folder", f"--data_dir={sound_folder}", *TINY]
    arguments += [f"--workdir={tmp_path / 'run'}", "--samples_per_class=1"]
    sentence = fails(capsys, *arguments)
    assert "1 recording cannot be used" in sentence
    assert "low/03.wav" in sentence
    main.main([*arguments, "--skip_bad_files"])
    assert (tmp_path / "run" / "coreset.npz").exists()


# The storage below orbax drops its own futures when a write fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("what", ["run", "cache"])
def test_a_full_disk_is_one_sentence(capsys, tmp_path, small_disk, what, monkeypatch):
    run = tmp_path / "run"
    if what == "run":
        run = small_disk / "run"
        (small_disk / "ballast").write_bytes(bytes(200_000))
    else:
        monkeypatch.setenv("AUDIODD_CACHE", str(small_disk / "cache"))
    arguments = ["distill", *TINY, f"--workdir={run}"]
    sentence = fails(capsys, *arguments)
    assert str(small_disk) in sentence
    assert "is full" in sentence
    assert not (run / "coreset.npz").exists()
    assert not list(small_disk.rglob("features.npy"))
    # With room again, the same command goes through.
    if what == "run":
        (small_disk / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    else:
        monkeypatch.undo()
    main.main(arguments)
    assert (run / "result.json").exists()


def test_features_on_a_full_disk_are_one_sentence(capsys, tmp_path, small_disk):
    folder = tmp_path / "ESC-50-master"
    published.write_esc50(folder, per_fold=2)
    (small_disk / "ballast").write_bytes(bytes(270_000))
    arguments = ["prepare", "--dataset=esc10", f"--data_dir={folder}"]
    arguments += ["--allow_partial", *(a for a in TINY if "features" in a)]
    arguments.append(f"--cache_dir={small_disk / 'cache'}")
    assert "is full" in fails(capsys, *arguments)
    assert not list(small_disk.rglob("features.npy"))
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    main.main(arguments)
    assert re.search(r"clips +100\b", capsys.readouterr().out)


def _count(run):
    file = run / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_sigterm_saves_and_explains_how_to_resume(tmp_path):
    run = tmp_path / "run"
    argv = [sys.executable, "-m", "audiodd_jax", "distill", *TINY, "--steps=100000"]
    process = subprocess.Popen(
        [*argv, f"--workdir={run}"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while _count(run) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + 15
    assert "stopped by SIGTERM after step" in error
    assert "Traceback" not in error
    step = int(re.search(r"after step (\d+)", error)[1])
    assert (run / "checkpoints" / str(step)).is_dir()


def test_doctor(capsys):
    main.main(["doctor"])
    text = capsys.readouterr().out
    for words in ("devices", "dataset tones", "built in", "memory", "jax "):
        assert words in text
