"""Measures this machine's accelerator, in one table.

    pip install "audiodd_jax[benchmark]" && python experiments/accelerator.py

Writes ``accelerator.md`` and ``accelerator.json`` to ``--out``, with

- an RFAD step against PyTorch (plain, and with ``torch.compile``) at four widths and at
  the published size, in three precisions, with its share of the rate of the largest
  matrix product measured here;
- predicted, compiled and measured memory;
- training, and scoring a pool, against PyTorch;
- whole distillations in each precision, with their accuracy and seconds.

The distillations need a dataset, by default the built-in ``tones``. For a machine
without recordings, ``--pack=FILE`` writes the features of ``--dataset`` and
``--data_dir`` to a file elsewhere, and ``--features=FILE`` reads that file. Parts that
would start after ``--minutes`` are skipped and listed. ``--quick`` is for tests on a
CPU.
"""

import dataclasses
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import step  # noqa: E402
from absl import app, flags, logging  # noqa: E402
from alternate import measure  # noqa: E402
from step import SETTINGS, Case  # noqa: E402

import audiodd_jax  # noqa: E402
from audiodd_jax.commands.main import explained  # noqa: E402
from audiodd_jax.config import FeaturesConfig, fields  # noqa: E402
from audiodd_jax.distillation import cost, loop  # noqa: E402
from audiodd_jax.features import dataset  # noqa: E402
from audiodd_jax.features.clips import Clips  # noqa: E402
from audiodd_jax.features.dataset import Dataset  # noqa: E402
from audiodd_jax.features.normalization import Normalization  # noqa: E402
from audiodd_jax.forecast import programs  # noqa: E402
from audiodd_jax.forecast.workload import Workload  # noqa: E402
from audiodd_jax.kernels.ridge import Scoring  # noqa: E402
from audiodd_jax.runtime import devices  # noqa: E402
from audiodd_jax.runtime import memory as memory_lib  # noqa: E402
from audiodd_jax.training import evaluation  # noqa: E402

_OUT = flags.DEFINE_string("out", "accelerator", "folder of the table")
_QUICK = flags.DEFINE_bool("quick", False, "run the smallest form of every part")
_MINUTES = flags.DEFINE_float("minutes", 8.0, "minutes after which no part starts")
_PACK = flags.DEFINE_string("pack", None, "write the dataset's features and stop")
_FEATURES = flags.DEFINE_string("features", None, "file written with --pack")
_DATASET = flags.DEFINE_string(
    "dataset", "tones", "dataset, unless --features is given"
)
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder with its recordings")

PRECISIONS = ("float32", "tf32", "bfloat16")
WIDTHS = tuple(f"{width},2,1280,100,32,64" for width in (32, 64, 128, 256))
PUBLISHED = "256,8,1280,500,64,128"
HAS_TORCH = importlib.util.find_spec("torch") is not None


def peaks():
    """Measures the GFLOP/s of the largest matrix product in each precision."""
    size = 512 if _QUICK.value else 8192
    rates = {}
    for name in PRECISIONS:
        kind = jnp.bfloat16 if name == "bfloat16" else jnp.float32
        level = {"float32": "highest", "tf32": "high", "bfloat16": "default"}[name]
        dot = jax.jit(lambda a, b, level=level: jnp.dot(a, b, precision=level))
        a = jax.random.normal(jax.random.key(0), (size, size)).astype(kind)
        dot(a, a).block_until_ready()
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            dot(a, a).block_until_ready()
            seconds.append(time.perf_counter() - began)
        rates[name] = 2 * size**3 / min(seconds) / 1e9
    return rates


def contenders(case, precision):
    """Returns functions that take our steps, and PyTorch's if it is installed."""
    flags.FLAGS.precision = precision
    turns = {"ours": step.ours(case)[0]}
    if HAS_TORCH:
        import torch
        import torch_rfad

        device = "cuda" if torch.cuda.is_available() else "cpu"
        sizes = {"width": case.width, "networks": case.networks, **SETTINGS}
        for compiled in (False, True)[: 1 if device == "cpu" else 2]:
            theirs = torch_rfad.make_step(
                *case.arrays(),
                **sizes,
                device=device,
                precision=precision,
                compiled=compiled,
            )
            name = "torch.compile" if compiled else "PyTorch"
            turns[name] = step.many(theirs)
    return turns


def one_step(text, precision, peak):
    """Measures the seconds of a step by contender, and its memory in three ways."""
    case = Case.parse(text)
    turns, count = (1, 1) if _QUICK.value else (3, flags.FLAGS.steps)
    flags.FLAGS.steps = count
    times = measure(contenders(case, precision), turns, count)
    medians = {name: statistics.median(s) for name, s in times.items()}
    mesh = devices.make_mesh(devices=jax.devices()[:1])
    grid, device = devices.grid_of(mesh), jax.devices()[0]
    plan = cost.plan_for_device(case.problem(), grid, device)
    predicted = cost.predict(case.problem(), grid, plan, device.platform)
    work = Workload(case.config(), case.sizes(), 0)
    compiled = programs.compiled_bytes(work, mesh, plan)
    rate = predicted.flops / medians["ours"] / 1e9
    return {
        "step": text,
        "precision": precision,
        "seconds": medians,
        "share_of_peak": rate / peak[precision],
        "predicted_bytes": predicted.step_bytes,
        "compiled_bytes": compiled,
        # The peak of the whole process so far, which later parts cannot lower.
        "peak_bytes": memory_lib.peak_bytes(),
    }


def pack(path):
    """Writes the standardised features of a dataset to one file."""
    data = _load(_config())
    train = data.train if not data.train.is_on_host else None
    if train is None:
        raise SystemExit("the training features do not fit on this device")
    np.savez_compressed(
        path,
        train=np.asarray(train.features),
        train_labels=np.asarray(train.labels),
        mean=data.normalization.mean,
        std=data.normalization.std,
        **{
            f"{name}_{key}": np.asarray(value, kind)
            for name in ("validation", "test")
            for key, value, kind in (
                ("images", getattr(data, name).images, np.float16),
                ("labels", getattr(data, name).labels, np.int32),
            )
        },
        info=json.dumps(
            {
                "name": data.name,
                "class_names": data.class_names,
                "features": dataclasses.asdict(data.features),
            }
        ),
    )


def unpack(path):
    """Reads the dataset from a file that ``pack`` wrote."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    info = json.loads(str(arrays["info"]))
    stats = Normalization(arrays["mean"], arrays["std"])
    split = lambda name: Clips(
        jnp.asarray(arrays[f"{name}_images"], jnp.float32),
        jnp.asarray(arrays[f"{name}_labels"]),
    )
    features = fields.from_dict(info["features"], FeaturesConfig)
    labels = jnp.asarray(arrays["train_labels"])
    return Dataset(
        train=Clips(jnp.asarray(arrays["train"]), labels, jax.device_put(stats)),
        validation=split("validation"),
        test=split("test"),
        class_names=tuple(info["class_names"]),
        normalization=stats,
        features=features,
        noise=None,
        fold=0,
        is_partial=False,
        name=info["name"],
        version="",
        licence="",
        clips_digest="",
        test_digest="",
        train_bytes=0,
        is_validation_official=False,
    )


def _load(config):
    """The dataset of a configuration, prepared."""
    return dataset.load(config.data, config.features)


def _config(name=None):
    changes = {"data__data_dir": _DATA_DIR.value}
    if _QUICK.value:
        changes |= {"loop__steps": 2, "loop__batch_size": 32, "network__width": 4}
    preset = "quick" if _QUICK.value else None
    return audiodd_jax.for_dataset(name or _DATASET.value, preset, **changes)


def distillation(precision, data):
    """Measures the seconds of a whole run, and its test accuracy in float32."""
    config = fields.replace(_config(data.name), {"network.precision": precision})
    began = time.perf_counter()
    distilled = loop.distill(config, data)
    seconds = time.perf_counter() - began
    scoring = Scoring.from_config(config, is_test=True)
    seeds = range(config.evaluation.seeds)
    (scores,) = evaluation.kernel_regression(
        [distilled.best], data.test, scoring, seeds
    )
    return {
        "data": data.name,
        "precision": precision,
        "steps": distilled.steps,
        "seconds": seconds,
        "accuracies": scores.accuracies,
    }


def benchmark(script, *arguments):
    """Returns the table that another benchmark prints."""
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["failed"])[-1]}
    return {"table": done.stdout}


def parts(data, peak):
    """Yields names and functions of the measurements."""
    cases = ["4,1,16,5,16,16"] if _QUICK.value else [*WIDTHS, PUBLISHED]
    precisions = PRECISIONS[:1] if _QUICK.value else PRECISIONS
    for text in cases:
        for kind in precisions:
            yield f"{text} {kind}", lambda t=text, p=kind: one_step(t, p, peak)
    for precision in precisions:
        name = f"distillation {precision}"
        yield name, lambda p=precision: distillation(p, data)
    if HAS_TORCH and not _QUICK.value:
        yield "training", lambda: benchmark("train.py")
        speed = ("--nomemory", "--bins=32", "--turns=5")
        yield "pool scoring", lambda: benchmark("acquisition.py", *speed)


def table(results):
    """Renders the measurements as Markdown."""
    rows = results["parts"]
    product = ", ".join(f"{v:,.0f} ({k})" for k, v in results["peaks"].items())
    names = list(dict.fromkeys(n for r in rows if "step" in r for n in r["seconds"]))
    lines = [
        f"# {results['device']}, jax {results['jax']}",
        "",
        f"Largest matrix product: {product} GFLOP/s. An RFAD step of width, networks, "
        "batch, samples, mel bins, frames:",
        "",
        f"| step | precision | {', s | '.join(names)}, s | share of peak "
        "| predicted, MB | compiled, MB |",
        "|---|---|" + "---|" * (len(names) + 3),
    ]
    for row in rows:
        if "step" in row:
            times = " | ".join(f"{row['seconds'].get(n, 0):.4f}" for n in names)
            lines.append(
                f"| {row['step']} | {row['precision']} | {times} "
                f"| {100 * row['share_of_peak']:.0f} % "
                f"| {row['predicted_bytes'] / 1e6:,.0f} "
                f"| {row['compiled_bytes'] / 1e6:,.0f} |"
            )
    lines += ["", "| distillation | precision | steps | s | test accuracy, % |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        if "accuracies" in row:
            mean = 100 * statistics.fmean(row["accuracies"])
            lines.append(
                f"| {row['data']} | {row['precision']} | {row['steps']} "
                f"| {row['seconds']:.1f} | {mean:.1f} |"
            )
    for row in rows:
        if "table" in row:
            lines += ["", f"## {row['part'].capitalize()}", "", row["table"].strip()]
        if "error" in row:
            lines += ["", f"{row['part']}: {row['error']}"]
    if results["left_out"]:
        lines += ["", f"Skipped for lack of time: {', '.join(results['left_out'])}."]
    return "\n".join(lines) + "\n"


def main(_):
    logging.set_verbosity(logging.WARNING)
    if _PACK.value:
        pack(_PACK.value)
        return
    # Loaded first, so that a missing file is reported at once.
    data = unpack(_FEATURES.value) if _FEATURES.value else _load(_config())
    began, peak = time.monotonic(), peaks()
    results = {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "peaks": peak,
        "parts": [],
        "left_out": [],
    }
    out = Path(_OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    for name, run in parts(data, peak):
        if time.monotonic() - began > 60 * _MINUTES.value:
            results["left_out"].append(name)
            continue
        try:
            row = run()
        except Exception as error:  # report it and measure the other parts
            row = {"error": (str(error).splitlines() or [type(error).__name__])[0]}
        results["parts"].append({"part": name, **row})
        # Written after each part, so that an interrupted run leaves its results.
        results["seconds"] = time.monotonic() - began
        (out / "accelerator.json").write_text(json.dumps(results, indent=1) + "\n")
        (out / "accelerator.md").write_text(table(results))
    print((out / "accelerator.md").read_text())


if __name__ == "__main__":
    explained(lambda: app.run(main))
