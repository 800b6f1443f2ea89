"""The command line: ``audiodd COMMAND [flags]``.

JAX is imported by the commands that compute, never to answer a question about flags.
"""

import dataclasses
import difflib
import errno
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from audiodd_jax import cli_flags
from audiodd_jax import config as config_lib
from audiodd_jax.config import Config
from audiodd_jax.data import datasets
from audiodd_jax.runtime.errors import UserError
from audiodd_jax.version import __version__


def _parse(
    command: str, argv: Sequence[str], base: Callable[[Any], Config]
) -> tuple[flags.FlagValues, Config]:
    return cli_flags.parse(command, argv, COMMANDS[command].define, base)


def _keep_compiled(cache_dir: Path | None) -> None:
    """Has JAX keep what it compiles on disk: a second run starts in seconds.

    Under this machine's name, since a home folder may serve machines that differ.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:
        place = (cache_dir or datasets.cache_root()) / "compiled" / platform.node()
        jax.config.update("jax_compilation_cache_dir", str(place))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _cache_dir(values: Any) -> Path | None:
    return Path(values.cache_dir).expanduser() if values.cache_dir else None


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def prepare(argv: Sequence[str]) -> None:
    """Finds or downloads a dataset, checks it, and caches its features."""
    values, config = _parse("prepare", argv, cli_flags.dataset_config)
    config_lib.validate(config)
    from audiodd_jax.data import splits
    from audiodd_jax.features import cache
    from audiodd_jax.report import inventory

    _keep_compiled(_cache_dir(values))
    began = time.perf_counter()
    found = cache.prepare(config, _cache_dir(values))
    parts = splits.assign(
        found.labels, found.splits, found.folds, found.groups, config.data
    )
    rows = inventory.summary(config.data.name, found, parts)
    _table([*rows, ("took", f"{time.perf_counter() - began:.1f} s")])
    print("", *inventory.class_counts(found, parts), sep="\n")


def distill(argv: Sequence[str]) -> None:
    """Runs a distillation method to a coreset, scores it and draws it."""
    values, config = _parse("distill", argv, cli_flags.dataset_config)
    config_lib.validate(config)
    from audiodd_jax import api, cross_validation
    from audiodd_jax.runtime.interrupt import Interrupted

    _keep_compiled(_cache_dir(values))
    data = config.data
    name = "-".join(filter(None, (data.name, data.variant)))
    fold = f"-fold{values.fold}" if values.fold else ""
    default = (
        f"{name}{fold}-{config.method}-{config.coreset.samples_per_class}-"
        f"seed{config.seed}"
    )
    workdir = Path(values.workdir or Path("runs") / default)
    finished = (workdir / "result.json").exists()
    try:
        if values.fold == "all":
            run = cross_validation.distill(config, workdir, _cache_dir(values))
        else:
            run = api.distill(config, workdir, _cache_dir(values))
    except Interrupted as stop:
        print(f"{stop}; the same command continues {workdir}", file=sys.stderr)
        raise SystemExit(128 + stop.signum) from None
    if finished:
        print(f"{workdir} holds this run, finished already:")
    if values.fold == "all":
        _show_folds(run.result, run.path)
    else:
        _show_result(run.result, run.path)


def _show_result(result: dict[str, Any], path: Path) -> None:
    spread = f" ± {100 * result['test_accuracy_std']:.1f}"
    start = "real clips" if result["start"] == "real" else "noise"
    rows = [
        ("coreset", f"{result['num_samples']} spectrograms, "
         f"{result['samples_per_class']} a class: "
         f"{_percent(result['fraction_of_train'])} of {result['num_train']:,} clips"),
        ("bytes", f"{result['bytes']:,}, of {result['train_bytes']:,} of raw audio"),
        ("test accuracy, distilled", f"{100 * result['test_accuracy']:.1f}{spread} %"),
        (
            f"test accuracy, {start}",
            f"{100 * result['start_test_accuracy']:.1f} % (what it started from)",
        ),
        ("protocol", f"{result['protocol']}, {len(result['test_accuracies'])} seeds"),
        ("distillation", f"{result['steps']} steps, {result['wall_seconds']:.0f} s"),
        ("artefact", str(path / "coreset.npz")),
        ("pictures", str(path / "figures")),
        ("card", str(path / "README.md")),
    ]  # fmt: skip
    _table(rows)


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
    _table(rows)


def evaluate(argv: Sequence[str]) -> None:
    """Scores a coreset on the test split of its dataset, over seeds."""
    from audiodd_jax.distillation.coreset import load_coreset

    found = {}

    def base(values: Any) -> Config:
        from audiodd_jax import api, cross_validation

        if bool(values.workdir) == bool(values.coreset):
            raise UserError("evaluate needs either --workdir or --coreset")
        if values.protocol != "krr":
            raise UserError(f"there is no protocol {values.protocol!r}; there is krr")
        folder = Path(values.workdir or "")
        if values.workdir:
            found["folds"] = cross_validation.fold_directories(folder)
            folder = next(iter(found["folds"]), folder)
        found["coreset"] = load_coreset(values.coreset or folder / "coreset.npz")
        config = api.coreset_config(found["coreset"])
        file = folder / "config.json"
        if values.workdir and file.exists():
            from audiodd_jax.runtime.runs import read_json

            saved = config_lib.from_dict(read_json(file))
            places = ("data.data_dir", "data.allow_partial", "data.skip_bad_files")
            config = config_lib.replace(
                config, {name: config_lib.get(saved, name) for name in places}
            )
        if values.dataset and values.dataset != config.data.name:
            datasets.lookup(values.dataset)
        return config

    values, config = _parse("evaluate", argv, base)
    from audiodd_jax import api, cross_validation

    _keep_compiled(_cache_dir(values))
    coreset = found["coreset"]
    if found.get("folds"):
        folder = Path(values.workdir)
        outcome = cross_validation.evaluate(folder, config, _cache_dir(values))
    else:
        outcome = api.evaluate(coreset, config, _cache_dir(values))
    each = "folds" if found.get("folds") else "seeds"
    rows = [
        ("coreset", f"{coreset.labels.shape[0]} spectrograms of "
         f"{coreset.metadata['dataset']}, {len(coreset.class_names)} classes"),
        ("protocol", f"{outcome.protocol}, {len(outcome.accuracies)} {each}"),
        ("test accuracy", str(outcome)),
        (f"each of the {each}",
         ", ".join(f"{100 * a:.1f} %" for a in outcome.accuracies)),
    ]  # fmt: skip
    _table(rows)


def doctor(argv: Sequence[str]) -> None:
    """Shows devices, versions, datasets, free space, and what to do about the rest."""
    values, config = _parse("doctor", argv, cli_flags.dataset_config)
    from audiodd_jax import doctor as doctor_lib

    _table(doctor_lib.examine(config.data, _cache_dir(values)))


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: its name, what runs it, and what defines its flags."""

    name: str
    run: Callable[[Sequence[str]], None]
    define: tuple[cli_flags.Definition, ...]

    @property
    def summary(self) -> str:
        """The first line of what the command says of itself."""
        return (self.run.__doc__ or "").splitlines()[0]


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "prepare",
            prepare,
            (cli_flags.define_data_flags, cli_flags.define_preset_flag),
        ),
        Command(
            "distill",
            distill,
            (
                cli_flags.define_data_flags,
                cli_flags.define_preset_flag,
                cli_flags.define_distill_flags,
            ),
        ),
        Command(
            "evaluate",
            evaluate,
            (cli_flags.define_data_flags, cli_flags.define_evaluate_flags),
        ),
        Command("doctor", doctor, (cli_flags.define_data_flags,)),
    )
}


def _table(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:{width}s}  {value}")


def _help() -> str:
    lines = [
        f"audiodd {__version__}: dataset distillation of audio in JAX",
        "",
        "usage: audiodd COMMAND [flags]      audiodd COMMAND --help",
        "",
    ]
    lines += [f"  {name:10s} {command.summary}" for name, command in COMMANDS.items()]
    lines += ["  help       Shows this."]
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Runs the command that ``argv`` (without the program's name) asks for.

    Raises:
      UserError: no such command, or what the command itself raises.
    """
    if not argv or argv[0] in ("help", "-h", "--help", "-help"):
        print(_help())
        return
    name, rest = argv[0], argv[1:]
    if name in ("version", "--version"):
        print(__version__)
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see audiodd help"
        raise UserError(f"there is no command {name!r}; {hint}")
    if {"--help", "-h", "-help", "--helpfull", "help"} & set(rest):
        command = COMMANDS[name]
        print(cli_flags.help_text(name, command.summary, command.define))
        return
    COMMANDS[name].run(rest)


def _explain(error: Exception) -> str | None:
    """One sentence for an error that is not the program's fault, else None."""
    if isinstance(error, flags.Error):
        return str(error).replace("FATAL Flags parsing error:", "").strip()
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = error.filename or "the run or the cache"
        return (
            f"the disk that holds {where} is full; what was finished is kept, and the "
            "same command continues once there is room"
        )
    if isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError):
        return f"{error.filename}: {error.strerror}"
    return None


def run() -> None:
    """The console script: ``main``, with errors told in a sentence."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("audiodd: %(message)s"))
    log = logging.getLogger("audiodd_jax")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        main(sys.argv[1:])
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        sentence = _explain(error)
        if sentence is None:
            raise
        print(f"audiodd: error: {sentence}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, flags.Error) else 1) from None
