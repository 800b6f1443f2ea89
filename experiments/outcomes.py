"""What runs have found, kept in a file that several calls may share, and the next run.

What is asked for twice is run once; what cannot be run is noted, and why.
"""

import time

from contenders import Outcome

from audiodd_jax.errors import InUseError, UserError
from audiodd_jax.runtime import multiprocess
from audiodd_jax.runtime.files import read_json, write_json
from audiodd_jax.runtime.locks import exclusive


class Outcomes:
    """What the runs of a table have found so far, by what they were asked.

    A key is the name of a method of ``Contenders`` and its arguments, the seed last.

    Attributes:
      runs: the contenders.
      results: outcomes by key.
      reasons: why there is none, by key.
      elsewhere: keys that another call is running.
      file: where the outcomes are kept.
    """

    def __init__(self, runs, hours=0.0, publish=None):
        """Reads what earlier calls have found.

        Args:
          runs: the contenders.
          hours: time until which runs are begun; 0: no limit.
          publish: called with these outcomes after each change; what it returns,
            ``write`` returns. No two calls of this table publish at the same time.

        Raises:
          UserError: if the file is damaged or has results of other settings.
        """
        self.runs, self.results, self.reasons = runs, {}, {}
        self.elsewhere, self._publish = set(), publish or (lambda _: None)
        self._end = time.monotonic() + 3600 * hours if hours else float("inf")
        self.file = runs.place / runs.model / "outcomes.json"
        self._read()

    def _read(self):
        """Adds what other calls have found since."""
        if not self.file.exists():
            return
        kept, asked = read_json(self.file), self.runs.settings
        if not isinstance(kept, dict) or {"settings", "outcomes"} - kept.keys():
            raise UserError(f"{self.file} is damaged, or of another version")
        if kept["settings"] != asked:
            raise UserError(
                f"{self.file} has results of other settings, {kept['settings']}, than "
                f"{asked}: choose another --workdir"
            )
        try:
            found = {tuple(key): _outcome(*value) for key, value in kept["outcomes"]}
        except (TypeError, ValueError, AttributeError):
            raise UserError(f"{self.file} is damaged, or of another version") from None
        self.results = {**found, **self.results}

    def write(self):
        """Writes what was found, and publishes it."""
        with exclusive(self.file.with_name("outcomes.lock"), "writing outcomes"):
            self._read()
            outcomes = [[list(k), list(v)] for k, v in self.results.items()]
            kept = {"settings": self.runs.settings, "outcomes": outcomes}
            write_json(self.file, kept)
            return self._publish(self)

    def ask(self, name, *arguments):
        """Runs one thing; what cannot be run is noted."""
        key = (name, *arguments)
        self._read()
        if key in self.results:
            return
        seconds = self._expected(key)
        left = self._end - time.monotonic()
        if seconds > left:
            time_of = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
            known = f" (about {time_of})" if seconds else ""
            self.reasons[key] = f"not run: no time{known}"
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
            self.reasons[key] = "not run: the device has not the memory"
        self.write()

    def _expected(self, key):
        """Seconds of the most similar run so far: the most arguments alike."""
        alike = lambda other: sum(a == b for a, b in zip(key, other, strict=True))
        known = [other for other in self.results if other[0] == key[0]]
        return self.results[max(known, key=alike)].seconds if known else 0.0

    def of_seeds(self, seeds, *asked):
        """The results of some seeds, and why there are none.

        Args:
          seeds: the seeds.
          *asked: the key, without the seed.
        """
        keys = [(*asked, seed) for seed in seeds]
        reasons = [self.reasons[key] for key in keys if key in self.reasons]
        found = [self.results[key] for key in keys if key in self.results]
        return found, reasons[0] if reasons else "not run"

    def best_function(self, acquisitions, share, seed):
        """The function whose network was best with a share, on validation clips.

        None while that is not known.

        Args:
          acquisitions: the functions.
          share: of the labels, such as ``20%``.
          seed: by the runs of this one.
        """
        clips, at = self.runs.count(share), {}
        for name in acquisitions:
            key = ("choice", name, seed)
            outcome = self.results.get(key)
            if outcome is None and key in self.elsewhere:
                return None
            if outcome and clips in (outcome.validation or {}):
                at[name] = outcome.validation[clips]
        return max(at, key=at.get) if at else None


def _outcome(accuracies, seconds, stored, validation):
    """An outcome as JSON has it, whose numbers of clips are texts."""
    numbers = lambda at: {int(clips): value for clips, value in (at or {}).items()}
    return Outcome(numbers(accuracies), seconds, stored, numbers(validation))
