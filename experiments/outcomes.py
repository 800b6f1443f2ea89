"""Results of runs, in a file that several calls may share.

Every result is computed once. If a run is impossible, the reason is recorded.
"""

import time

from contenders import Outcome

from audiodd_jax.errors import InUseError, UserError
from audiodd_jax.runtime import multiprocess
from audiodd_jax.runtime.files import exclusive, read_json, write_json


class Outcomes:
    """The results of a table's runs so far.

    A key is the name of a method of ``Contenders`` and its arguments, the seed last.

    Attributes:
      runs: The contenders.
      results: Outcomes by key.
      reasons: Reasons for missing outcomes, by key.
      elsewhere: Keys that another call is running.
      file: File of the outcomes.
    """

    def __init__(self, runs, hours=0.0, publish=None):
        """Reads the results of earlier calls.

        Args:
          hours: Time during which runs are started; 0: no limit, below 0: none.
          publish: Function of these outcomes that is called after each change. Its
            result is returned by ``write``. Calls that share a table never publish at
            the same time.

        Raises:
          UserError: the file is damaged or has results of other settings.
        """
        self.runs, self.results, self.reasons = runs, {}, {}
        self.elsewhere, self._publish = set(), publish or (lambda _: None)
        self._end = time.monotonic() + 3600 * hours if hours else float("inf")
        self.file = runs.folder / runs.model / "outcomes.json"
        self._read()

    def _read(self):
        """Adds the results of other calls."""
        if not self.file.exists():
            return
        content, settings = read_json(self.file), self.runs.settings
        if not isinstance(content, dict) or {"settings", "outcomes"} - content.keys():
            raise UserError(f"{self.file} is damaged, or of another version")
        if content["settings"] != settings:
            raise UserError(
                f"{self.file} has results of other settings, {content['settings']}, "
                f"than {settings}: choose another --workdir"
            )
        try:
            results = {tuple(k): _outcome(*value) for k, value in content["outcomes"]}
        except (TypeError, ValueError, AttributeError):
            raise UserError(f"{self.file} is damaged, or of another version") from None
        self.results = {**results, **self.results}

    def write(self):
        """Writes and publishes all results."""
        with exclusive(self.file.with_name("outcomes.lock"), "writing outcomes"):
            self._read()
            outcomes = [[list(k), list(v)] for k, v in self.results.items()]
            content = {"settings": self.runs.settings, "outcomes": outcomes}
            write_json(self.file, content)
            return self._publish(self)

    def ask(self, name, *arguments):
        """Computes one result, or records why that is impossible."""
        key = (name, *arguments)
        self._read()
        if key in self.results:
            return
        seconds = self._expected(key)
        left = self._end - time.monotonic()
        if seconds > left:
            time_of = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
            estimate = f" (about {time_of})" if seconds else ""
            self.reasons[key] = f"not run: no time{estimate}"
            return
        try:
            self.results[key] = getattr(self.runs, name)(*arguments)
        except InUseError:
            self.elsewhere.add(key)
            self.reasons[key] = "not run: another call runs it"
        except UserError as error:
            self.reasons[key] = f"not run: {error}"
        except Exception as error:
            if not multiprocess.is_out_of_memory(error):
                raise
            self.reasons[key] = "not run: the device has too little memory"
        self.write()

    def _expected(self, key):
        """Returns the seconds of the finished run with the most equal arguments."""
        alike = lambda other: sum(a == b for a, b in zip(key, other, strict=True))
        finished = [other for other in self.results if other[0] == key[0]]
        return self.results[max(finished, key=alike)].seconds if finished else 0.0

    def of_seeds(self, seeds, *key):
        """Returns the results of some seeds, and a reason for missing ones.

        Args:
          *key: The key without the seed.
        """
        keys = [(*key, seed) for seed in seeds]
        reasons = [self.reasons[key] for key in keys if key in self.reasons]
        results = [self.results[key] for key in keys if key in self.results]
        return results, reasons[0] if reasons else "not run"

    def best_function(self, acquisitions, share, seed):
        """Returns the function with the best validation accuracy at a label share.

        None if a function's run is not finished.

        Args:
          share: Share of the labels, such as ``20%``.
        """
        clips, scores = self.runs.count(share), {}
        for name in acquisitions:
            key = ("choice", name, seed)
            outcome = self.results.get(key)
            if outcome is None and key in self.elsewhere:
                return None
            if outcome and clips in (outcome.validation or {}):
                scores[name] = outcome.validation[clips]
        return max(scores, key=scores.get) if scores else None


def _outcome(accuracies, seconds, stored, validation):
    """Builds an outcome from JSON, in which numbers of clips are strings."""
    numbers = lambda at: {int(clips): value for clips, value in (at or {}).items()}
    return Outcome(numbers(accuracies), seconds, stored, numbers(validation))
