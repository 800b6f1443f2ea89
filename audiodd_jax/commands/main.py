"""The command line: ``audiodd COMMAND [flags]``."""

import codecs
import dataclasses
import difflib
import errno
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence

from absl import flags

from audiodd_jax.commands import (
    active_cli as active,
)
from audiodd_jax.commands import (
    distill_cli as distill,
)
from audiodd_jax.commands import (
    doctor_cli as doctor,
)
from audiodd_jax.commands import (
    evaluate_cli as evaluate,
)
from audiodd_jax.commands import (
    export_cli as export,
)
from audiodd_jax.commands import (
    prepare,
    sweep,
)
from audiodd_jax.commands import (
    report_cli as report,
)
from audiodd_jax.commands import (
    train_cli as train,
)
from audiodd_jax.errors import UserError
from audiodd_jax.flags import definitions, parse
from audiodd_jax.version import __version__


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: its name, its function, and the definitions of its flags."""

    name: str
    run: Callable[[Sequence[str]], None]
    define: tuple[definitions.Definition, ...]

    @property
    def summary(self) -> str:
        """The first line of the command's docstring."""
        return (self.run.__doc__ or "").splitlines()[0]


COMMANDS = {
    run.__name__: Command(run.__name__, run, definitions.COMMAND_FLAGS[run.__name__])
    for run in (
        prepare.prepare,
        distill.distill,
        train.train,
        evaluate.evaluate,
        active.active,
        sweep.sweep,
        report.report,
        export.export,
        doctor.doctor,
    )
}


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
    """Runs the command in ``argv`` (without the program's name).

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
        print(parse.help_text(name, command.summary, command.define))
        return
    COMMANDS[name].run(rest)


def _explain(error: Exception) -> str | None:
    """One sentence for an error that is not a fault of the program, else None."""
    if isinstance(error, flags.Error):
        return str(error).replace("FATAL Flags parsing error:", "").strip()
    if isinstance(error, UserError):
        return str(error)
    if "jax" in sys.modules:
        from audiodd_jax.runtime import multiprocess

        if multiprocess.is_out_of_memory(error):
            return (
                "the device is out of memory; lower --config.network.chunk "
                "or --config.evaluation.batch_size, or see audiodd distill --dry_run"
            )
        if multiprocess.lost(error):
            from audiodd_jax.runtime import supervisor

            return supervisor.LOST
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = error.filename or "the run or the cache"
        return (
            f"the disk that holds {where} is full; what was finished is kept, and the "
            "same command continues once there is room"
        )
    if isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return None


def run() -> None:
    """The console script: ``main``, with one sentence for each error."""
    explained(lambda: main(sys.argv[1:]))


_ASCII = {"±": "+-", "…": "..."}


def _substitute(error: UnicodeError) -> tuple[str, int]:
    """Replaces characters that an output cannot encode."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = "".join(_ASCII.get(c, ascii(c)[1:-1]) for c in text)
    return plain, error.end


def _print_anything() -> None:
    """Lets outputs of any encoding print all characters, some of them escaped."""
    codecs.register_error("audiodd", _substitute)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="audiodd")


def explained(work: Callable[[], None]) -> None:
    """Runs a function; an error ends the program with one sentence.

    Args:
      work: the function.

    Raises:
      SystemExit: something went wrong.
    """
    _print_anything()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("audiodd: %(message)s"))
    # It warns of a home folder that cannot be written, and goes on without.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    log = logging.getLogger("audiodd_jax")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        work()
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
        if "jax" in sys.modules:
            from audiodd_jax.runtime import multiprocess

            if multiprocess.leaves_others_waiting(error):
                # An orderly end would wait for them.
                sys.stderr.flush()
                os._exit(1)
        raise SystemExit(2 if isinstance(error, flags.Error) else 1) from None
