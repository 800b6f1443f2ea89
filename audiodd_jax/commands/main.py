"""The command line: ``audiodd COMMAND [flags]``."""

import codecs
import difflib
import errno
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence

from audiodd_jax import command_line
from audiodd_jax.config.user_paths import with_urls
from audiodd_jax.errors import UserError
from audiodd_jax.flags import COMMANDS
from audiodd_jax.version import __version__

_HELP = ("help", "-h", "--help", "-help", "--helpfull")
_ASCII = {"±": "+-", "…": "..."}


def main(argv: Sequence[str]) -> None:
    """Runs the command in ``argv`` (without the program's name).

    Raises:
      UserError: an unknown command, or any error of the command itself.
    """
    if not argv or argv[0] in _HELP:
        print(f"audiodd {__version__}: dataset distillation of audio in JAX\n")
        print("usage: audiodd COMMAND [flags]      audiodd COMMAND --help\n")
        for name, command in COMMANDS.items():
            print(f"  {name:10s} {command.summary}")
        print("  help       Shows this text.")
        return
    name, rest = argv[0], argv[1:]
    if name in ("version", "--version"):
        print(__version__)
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "see audiodd help"
        raise UserError(f"there is no command {name!r}; {hint}")
    if set(_HELP) & set(rest):
        print(command_line.help_text(name))
        return
    line = command_line.parse(name, rest)
    coreset = "coreset" in line.flags and line.flags.coreset is not None
    reads_coreset = coreset or name in ("evaluate", "export", "score")
    if COMMANDS[name].has_settings and not reads_coreset:
        line.configure_defaults()  # refuses bad settings before JAX is imported
    # Imported only now, since commands import JAX.
    command = importlib.import_module(f"audiodd_jax.commands.{name}")
    from audiodd_jax.runtime.environment import standard_numerics

    with standard_numerics():
        command.run(line)


def _explain(error: Exception) -> str | None:
    """Returns one sentence for an error of the user or the machine, else None."""
    if isinstance(error, command_line.FlagsError):
        return str(error).replace("FATAL Flags parsing error:", "").strip()
    if isinstance(error, UserError):
        return str(error)
    if "jax" in sys.modules:
        from audiodd_jax.runtime import multiprocess, signals

        if multiprocess.is_out_of_memory(error):
            return (
                "the device is out of memory; lower --config.network.chunk "
                "or --config.evaluation.batch_size, or see audiodd distill --dry_run"
            )
        if multiprocess.lost(error):
            return signals.LOST
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "the run or the cache"
        why = "is full" if error.errno == errno.ENOSPC else "has no quota left for you"
        return (
            f"the disk that holds {where} {why}; finished work is kept, and the same "
            "command continues once there is space"
        )
    if isinstance(error, OSError) and error.errno:
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return None


def run() -> None:
    """The console script: ``main``, with one sentence for each error."""
    explained(lambda: main(sys.argv[1:]))


def _substitute(error: UnicodeError) -> tuple[str, int]:
    """Replaces characters that an output cannot encode."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = "".join(_ASCII.get(c, ascii(c)[1:-1]) for c in text)
    return plain, error.end


class _Formatter(logging.Formatter):
    """Names mirrored paths by their URLs."""

    def format(self, record: logging.LogRecord) -> str:
        return with_urls(super().format(record))


def explained(work: Callable[[], None]) -> None:
    """Runs a function; an error ends the program (SystemExit) with one sentence."""
    codecs.register_error("audiodd", _substitute)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="audiodd")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("audiodd: %(message)s"))
    # Otherwise it warns about a home folder that cannot be written.
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
        print(f"audiodd: error: {with_urls(sentence)}", file=sys.stderr)
        if "jax" in sys.modules:
            from audiodd_jax.runtime import multiprocess

            if multiprocess.leaves_others_waiting(error):
                # A regular exit would wait for them.
                sys.stderr.flush()
                os._exit(1)
        is_usage = isinstance(error, command_line.FlagsError)
        raise SystemExit(2 if is_usage else 1) from None
