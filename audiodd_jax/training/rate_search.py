"""Trainings whose learning rate is chosen on validation clips; all resume."""

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from audiodd_jax.config import Config, fields, presets
from audiodd_jax.errors import NotFiniteError, UserError
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.runtime import mirror
from audiodd_jax.runtime.run_directory import RunDirectory, run_once
from audiodd_jax.training import evaluation, fit, programs
from audiodd_jax.training import source as source_lib
from audiodd_jax.training.fit import Fitted
from audiodd_jax.training.programs import Programs
from audiodd_jax.training.source import Source

_log = logging.getLogger(__name__)

# Learning rates to try, as multiples of the recipe's.
MULTIPLES = (0.3, 1.0, 3.0)


class Trial(NamedTuple):
    """A training at one learning rate.

    Attributes:
      fitted: None if the loss was not finite.
      validation: score, and minus the loss, on validation clips.
    """

    fitted: Fitted | None
    validation: tuple[float, float]
    seconds: float


class RateSearch(NamedTuple):
    """Trainings of one network on one dataset.

    Attributes:
      config: data, network and training; each training has one seed, and ends with its
        last step.
      folder: folder of the trainings.
      compiled: programs by learning rate, and whether clips are augmented already;
        trainings add theirs.
    """

    config: Config
    data: Dataset
    folder: Path
    compiled: dict[tuple[float, bool], Programs]

    @property
    def rates(self) -> list[float]:
        """The learning rates to try."""
        rate = self.config.training.learning_rate
        return [float(f"{multiple * rate:.4g}") for multiple in MULTIPLES]

    def scored(
        self, source: Source, seed: int, rates: Sequence[float], shown: str, name: str
    ) -> dict[str, Any]:
        """Trains at each rate; scores the best network in validation on test clips.

        Returns its scores and rate. The rates' order decides between equal validations.

        Args:
          shown: describes the training set in the log.
          name: the folder's name.
        """
        data, network = self.data, self.config.model.name

        def work(folder: Path) -> dict[str, Any]:
            trials = {
                rate: self.trial(source, seed, rate, folder / f"{rate:g}")
                for rate in rates
            }
            best = max(rates, key=lambda rate: trials[rate].validation)
            if (fitted := trials[best].fitted) is None:
                raise UserError(
                    "the loss is not finite at any of the learning rates "
                    f"{', '.join(f'{rate:g}' for rate in rates)}: lower "
                    "--config.training.learning_rate"
                )
            scores = evaluation.networks(fitted, data.test, network, data.num_classes)
            scores = scores._replace(metric=data.metric)
            words = (network, shown, seed, best, data.metric, scores)
            _log.info("%s, %s, seed %d, rate %g: test %s %s", *words)
            return {
                "learning_rate": best,
                "validation_accuracies": {
                    f"{rate:g}": trial.validation[0]
                    for rate, trial in trials.items()
                    if trial.fitted
                },
                "wall_seconds": sum(trial.seconds for trial in trials.values()),
                **scores.summary(data.class_names),
            }

        record = {"learns_from": source.record, "rates": [*rates]}
        return self.once(name, seed, record, work)

    def trial(self, source: Source, seed: int, rate: float, folder: Path) -> Trial:
        """Trains one network at one rate, in a folder from which it resumes."""
        config = self._of(seed, rate)
        record = {**fields.record(config, fields.TRAINING), "trial": source.record}
        options = presets.run_options(config, fields.TRAINING, is_part=True)
        try:
            with RunDirectory(folder, record, **options) as run:
                compiled = self._programs(rate, source)
                members = source_lib.set_of(source, compiled.settings, self.data)
                fitted = fit.fit(compiled, members, seed, run)
        except NotFiniteError:
            return Trial(None, (-math.inf, -math.inf), 0.0)
        last = fitted.history[-1]
        validation = (last["validation_accuracy"], -last["validation_loss"])
        return Trial(fitted, validation, last["seconds"])

    def once(
        self,
        name: str,
        seed: int,
        record: dict[str, Any],
        work: Callable[[Path], dict[str, Any]],
    ) -> dict[str, Any]:
        """Does a unit of work once, and drops the trials that it would resume from.

        ``work`` maps the unit's folder, where its trials are, to its result; ``record``
        identifies it besides the settings.
        """
        config = self._of(seed, self.config.training.learning_rate)
        record = {**fields.record(config, fields.TRAINING), "score": record}

        def started(run: RunDirectory) -> dict[str, Any]:
            run.use_data(self.data.clips_digest)
            run.start_from(0)
            return work(run.path)

        options = presets.run_options(config, fields.TRAINING, is_part=True)
        done = run_once(self.folder / name, record, started, **options)
        for file in done.path.glob("*/.lock"):
            shutil.rmtree(file.parent)
        mirror.publish(done.path)
        return done.result

    def _programs(self, rate: float, source: Source) -> Programs:
        key = rate, source.is_augmented
        if key not in self.compiled:
            config = self._of(0, rate)
            settings = source_lib.settings_of(source, config.training)
            self.compiled[key] = programs.make(config.model, settings, self.data)
        return self.compiled[key]

    def _of(self, seed: int, rate: float) -> Config:
        """Returns the configuration of one training."""
        changes = {
            "seed": seed,
            "training.seeds": 1,
            "training.learning_rate": rate,
            "training.patience": 0,
        }
        return fields.replace(self.config, changes)
