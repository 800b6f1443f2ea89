"""What the commands of the command line do.

JAX is imported by the commands that compute, never to answer a question about flags.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audiodd_jax.cli.common import cache_dir, continued, names, percent, start, table
from audiodd_jax.config import Config, fields, presets
from audiodd_jax.data import datasets
from audiodd_jax.flags import parse
from audiodd_jax.jobs.coreset_data import coreset_config
from audiodd_jax.runtime.errors import UserError


def prepare(argv: Sequence[str]) -> None:
    """Finds or downloads a dataset, checks it, and caches its features."""
    values, config, _ = parse.parse("prepare", argv, parse.dataset_config)
    fields.validate(config)
    from audiodd_jax.data import splits
    from audiodd_jax.features import cache
    from audiodd_jax.report import dataset_summary

    start(values, config)
    began = time.perf_counter()
    found = cache.prepare(config, cache_dir(values))
    parts = splits.assign(
        found.labels, found.splits, found.folds, found.groups, config.data
    )
    rows = dataset_summary.summary(config.data.name, found, parts)
    table([*rows, ("took", f"{time.perf_counter() - began:.1f} s")])
    print("", *dataset_summary.class_counts(found, parts), sep="\n")


def distill(argv: Sequence[str]) -> None:
    """Runs a distillation method to a coreset, scores it and draws it."""
    values, config, _ = parse.parse("distill", argv, parse.dataset_config)
    fields.validate(config)
    from audiodd_jax.jobs import cross_validate
    from audiodd_jax.jobs import distill as distill_job

    start(values, config)
    data = config.data
    name = "-".join(filter(None, (data.name, data.variant)))
    fold = f"-fold{values.fold}" if values.fold else ""
    default = (
        f"{name}{fold}-{config.method}-{config.coreset.samples_per_class}-"
        f"seed{config.seed}"
    )
    workdir = Path(values.workdir or Path("runs") / default)
    if values.dry_run:
        _forecast(config, values)
        return
    finished = (workdir / "result.json").exists()
    with continued(workdir):
        if values.fold == "all":
            run = cross_validate.distill(config, workdir, cache_dir(values))
        else:
            run = distill_job.distill(config, workdir, cache_dir(values))
    if finished:
        print(f"{workdir} holds this run, finished already:")
    if values.fold == "all":
        _show_folds(run.result, run.path)
    else:
        _show_result(run.result, run.path)


def _forecast(config: Config, values: Any) -> None:
    """Prints what a run would take, from the sizes of its data alone."""
    from audiodd_jax.data import splits
    from audiodd_jax.distillation import memory_plan, registry
    from audiodd_jax.features import cache
    from audiodd_jax.jobs import dry_run

    found = cache.prepare(config, cache_dir(values))
    parts = splits.assign(
        found.labels, found.splits, found.folds, found.groups, config.data
    )
    scored = parts.validation.size + parts.test.size
    shape, classes = found.features.shape[1:3], len(found.class_names)
    sizes = memory_plan.sizes_of(config, shape, classes, parts.train.size, scored)
    table(dry_run.rows(config, sizes, registry.make_mesh(config, classes)))


def _show_result(result: dict[str, Any], path: Path) -> None:
    spread = f" ± {100 * result['test_accuracy_std']:.1f}"
    start = "real clips" if result["start"] == "real" else "noise"
    is_learnt, factor = result["steps"] > 0, result.get("factor", 1)
    beside = "what it started from" if is_learnt else "as many random ones"
    held = f", {factor} in each" if factor > 1 else ""
    rows = [
        ("coreset", f"{result['num_samples']} spectrograms{held}, "
         f"{result['samples_per_class']} a class: "
         f"{percent(result['fraction_of_train'])} of {result['num_train']:,} clips"),
        ("bytes", f"{result['bytes']:,}, of {result['train_bytes']:,} of raw audio"),
        (f"test accuracy, {'distilled' if is_learnt else 'chosen clips'}",
         f"{100 * result['test_accuracy']:.1f}{spread} %"),
        (f"test accuracy, {start}",
         f"{100 * result['start_test_accuracy']:.1f} % ({beside})"),
        ("protocol", f"{result['protocol']}, {len(result['test_accuracies'])} seeds"),
        ("distillation", f"{result['method']}, {result['steps']} steps, "
         f"{result['wall_seconds']:.0f} s"),
        ("artefact", str(path / "coreset.npz")),
        ("pictures", str(path / "figures")),
        ("card", str(path / "README.md")),
    ]  # fmt: skip
    table(rows)


def _show_folds(result: dict[str, Any], path: Path) -> None:
    spread = lambda name: (
        f"{100 * result[name]:.1f} ± {100 * result[name + '_std']:.1f} %"
    )
    start = "real clips" if result["start"] == "real" else "noise"
    each = (f"{100 * row['test_accuracy']:.1f}" for row in result["folds"])
    rows = [
        ("folds", f"{len(result['folds'])}, each tested once"),
        ("test accuracy, distilled", spread("test_accuracy")),
        ("each fold", ", ".join(each) + " %"),
        (f"test accuracy, {start}", spread("start_test_accuracy")),
        ("protocol", result["protocol"]),
        ("distillation", f"{result['wall_seconds']:.0f} s"),
        (
            "each fold's run",
            str(path / f"fold{result['folds'][0]['fold']}") + " and so on",
        ),
        ("card", str(path / "README.md")),
    ]
    table(rows)


def train(argv: Sequence[str]) -> None:
    """Trains a network on all clips, some of them, or a coreset, and scores it."""
    found = {}

    def base(values: Any) -> Config:
        if values.coreset:
            from audiodd_jax.artifacts.coreset_file import load_coreset

            found["coreset"] = load_coreset(values.coreset)
            config = coreset_config(found["coreset"])
        else:
            config = parse.dataset_config(values)
        return presets.for_model(config, values.model)

    values, config, _ = parse.parse("train", argv, base)
    fields.validate(config)
    if values.fold == "all":
        raise UserError("train tests on one fold: --fold takes its number")
    from audiodd_jax.jobs import train as train_job

    if values.herding and values.samples_per_class is None:
        raise UserError("--herding chooses --samples_per_class clips: say how many")
    learns_from, told = found.get("coreset"), "coreset"
    if _only_one(values, "coreset", "samples_per_class", "fraction", "indices"):
        learns_from, told = learns_from or _subset(values), _told(values)
    else:
        told = "all"
    start(values, config)
    name = f"{config.data.name}-{config.model.name}-{told}-seed{config.seed}"
    workdir = Path(values.workdir or Path("runs") / name)
    finished = (workdir / "result.json").exists()
    with continued(workdir):
        run = train_job.train(config, workdir, learns_from, cache_dir(values))
    if finished:
        print(f"{workdir} holds this run, finished already:")
    result = run.result
    half = result["test_accuracy_interval95"]
    interval = "" if half is None else f" (95 % interval ± {100 * half:.1f})"
    tested = {k: v for k, v in result["per_class_accuracy"].items() if v is not None}
    worst = min(tested, key=tested.get)
    rows = [
        ("network", f"{result['model']}, {result['parameters']:,} parameters"),
        ("learnt from", f"{result['learns_from']}: {result['num_samples']:,} "
         f"spectrograms, {percent(result['fraction_of_train'])} of "
         f"{result['num_train']:,} clips"),
        ("test accuracy", f"{run.scores}{interval}"),
        ("each seed", ", ".join(f"{100 * a:.1f} %" for a in run.scores.accuracies)),
        ("macro F1", f"{result['macro_f1']:.3f}"),
        ("hardest class", f"{worst}, {100 * tested[worst]:.1f} %"),
        ("training", f"{result['steps']} steps, {result['wall_seconds']:.0f} s"),
        ("weights", str(workdir / "networks.npz")),
        ("pictures", str(workdir / "figures")),
        ("card", str(workdir / "README.md")),
    ]  # fmt: skip
    table(rows)


def _only_one(values: Any, *names: str) -> bool:
    """Whether one of the flags is given.

    Raises:
      UserError: several are.
    """
    given = [name for name in names if values[name].present]
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]} exclude each other")
    return bool(given)


def _subset(values: Any) -> Any:
    """The training clips that the flags choose."""
    from audiodd_jax.selection import subsets

    if values.samples_per_class is not None:
        if values.samples_per_class < 1:
            raise UserError("samples_per_class must be at least 1")
        kind = "herding" if values.herding else "random"
        return subsets.Subset(kind, per_class=values.samples_per_class)
    if values.fraction is not None:
        return subsets.fraction_of(values.fraction)
    return subsets.read_indices(Path(values.indices))


def _told(values: Any) -> str:
    """What is learnt from, as a part of a folder's name."""
    if values.samples_per_class is not None:
        return f"{'herding' if values.herding else 'random'}{values.samples_per_class}"
    if values.fraction is not None:
        return f"{100 * values.fraction:g}percent"
    return "indices" if values.indices else "coreset"


def evaluate(argv: Sequence[str]) -> None:
    """Scores a coreset on the test split of its dataset, beside real clips if asked."""
    from audiodd_jax.artifacts.coreset_file import load_coreset

    found = {}

    def base(values: Any) -> Config:
        from audiodd_jax.jobs import cross_validate
        from audiodd_jax.jobs import evaluate as evaluate_lib

        if bool(values.workdir) == bool(values.coreset):
            raise UserError("evaluate needs either --workdir or --coreset")
        evaluate_lib.check_protocols(names(values.protocol))
        folder = Path(values.workdir or "")
        if values.workdir:
            found["folds"] = cross_validate.fold_directories(folder)
            folder = next(iter(found["folds"]), folder)
        found["coreset"] = load_coreset(values.coreset or folder / "coreset.npz")
        config = coreset_config(found["coreset"])
        file = folder / "config.json"
        if values.workdir and file.exists():
            from audiodd_jax.runtime.files import read_json

            saved = fields.from_dict(read_json(file))
            places = ("data.data_dir", "data.allow_partial", "data.skip_bad_files")
            config = fields.replace(
                config, {name: fields.get(saved, name) for name in places}
            )
        if values.dataset and values.dataset != config.data.name:
            datasets.lookup(values.dataset)
        return config

    values, config, changes = parse.parse("evaluate", argv, base)
    from audiodd_jax.jobs import cross_validate
    from audiodd_jax.jobs import evaluate as evaluate_lib

    start(values, config)
    coreset, folder = found["coreset"], Path(values.workdir or ".")
    groups = ("model.", "training.")
    asked = {
        "protocols": names(values.protocol),
        "against": names(values.against),
        "config": config,
        "changes": {k: v for k, v in changes.items() if k.startswith(groups)},
        "cache_dir": cache_dir(values),
    }
    out = Path(values.out) if values.out else None
    # A glance at kernel regression leaves no folder behind.
    if not out and values.workdir and (asked["protocols"] != ["krr"] or values.against):
        out = folder / "evaluation"
    each = "folds" if found.get("folds") else "seeds"
    with continued(out or folder):
        if found.get("folds"):
            rows = cross_validate.evaluate(folder, **asked, out=out)
        else:
            rows = evaluate_lib.evaluate(coreset, **asked, out=out)
    size = f"{coreset.labels.shape[0]} spectrograms of {coreset.metadata['dataset']}"
    lines = [("coreset", f"{size}, {len(coreset.class_names)} classes")]
    if len(rows) == 1:
        scores = rows[0].scores
        accuracies = ", ".join(f"{100 * a:.1f} %" for a in scores.accuracies)
        count = len(scores.accuracies)
        of = f"{count} {each if count > 1 else each[:-1]}"
        lines += [
            ("protocol", f"{scores.protocol}, {of}"),
            ("test accuracy", str(scores)),
            (f"each of the {each}", accuracies),
        ]
    if out:
        evaluate_lib.write(rows, coreset.class_names, out)
        lines.append(("tables and pictures", str(out)))
    table(lines)
    if len(rows) > 1:
        from audiodd_jax.report import evaluation_table

        print("", evaluation_table.render(rows), sep="\n")


def doctor(argv: Sequence[str]) -> None:
    """Shows devices, versions, datasets, free space, and what to do about the rest."""
    values, config, _ = parse.parse("doctor", argv, parse.dataset_config)
    from audiodd_jax.jobs import doctor as doctor_lib

    table(doctor_lib.examine(config.data, cache_dir(values)))
