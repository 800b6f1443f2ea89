"""Runs of a network on all clips, on selected clips and on coresets; all resume.

Every contender trains the same network with the same recipe, and is scored on the test
split once. Finished runs are read, and interrupted ones resume.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import published_results

import audiodd_jax
from audiodd_jax.active_learning import rounds
from audiodd_jax.commands import active, distill
from audiodd_jax.commands import train as train_lib
from audiodd_jax.config import fields, presets
from audiodd_jax.config.names import REGRESSION, SELECTION
from audiodd_jax.coreset import subsets
from audiodd_jax.errors import UserError
from audiodd_jax.training import source as source_lib

# Changes to the defaults of all runs, of a method's distillation, and of a network's
# training. The ConvNet keeps its recipe: all clips of Arabic Speech Commands give 77 %
# after 200 steps and 90 % after its 500. Less training would favour coresets, whose
# soft labels are learnt sooner.
_SMALL_MAPS = {"features.n_mels": 32, "features.frames": 64, "evaluation.seeds": 1}
_PATIENCE = {"training.patience": 6}
CHANGES = {
    # The published tables in about twenty hours on two CPU cores. A network stops after
    # six validations without improvement, and keeps its best weights.
    "study": {
        "all": _SMALL_MAPS,
        "convnet": {**_PATIENCE, "training.steps": 1000, "training.eval_every": 50},
        "resnet18": {**_PATIENCE, "training.steps": 300, "training.eval_every": 25},
    },
    "cpu": {
        "all": _SMALL_MAPS,
        "rfad": {"loop.steps": 200},
        "dc": {"loop.steps": 60},
        "dsa": {"loop.steps": 60},
        "dm": {"loop.steps": 100},
        "resnet18": {"training.steps": 60, "training.batch_size": 64},
    },
    "default": {},
    "source": {"all": presets.PRESETS["source"]},
}
# Batch norm learns the statistics of coresets of DC, DSA and DM, which differ from
# those of real clips. Small coresets need another norm, and large ones do not. The
# table has both.
OTHER_NORM = {"convnet": "instance", "resnet18": "group"}
# Hard labels, with the network's norm for real clips.
AS_REAL = "hard-real-norm"
TRAINS_AS_REAL = (*REGRESSION, *SELECTION, "aligned")
# Data sets whose copies may lack clips.
PARTIAL = ("urbansound8k", "speech_commands")
# Hard labels instead of a teacher's labels for random views of each spectrogram.
_HARD = {"teacher.networks": 0, "coreset.views": 0}


class Outcome(NamedTuple):
    """The result of a run.

    Attributes:
      accuracies: Test accuracy by number of labelled clips.
      seconds: Duration of the run and of the runs that it builds on.
      stored: Bytes of the coreset; None for real clips.
      validation: Validation accuracy by number of labelled clips.
    """

    accuracies: dict[int, float]
    seconds: float
    stored: int | None = None
    validation: dict[int, float] | None = None


class Contenders:
    """The runs of one network on one dataset.

    Attributes:
      fold: Test fold; 0: the last one.
      model: ``convnet`` or ``resnet18``.
      sizes: Spectrograms per class of the coresets, largest first.
      work: Amount of work, a key of ``CHANGES``.
      folder: Folder of the runs.
      steps: Training steps of the network; 0: those of ``work``.
      shares: Shares of the labels at which rounds of active learning end.
    """

    def __init__(
        self,
        dataset,
        data_dir,
        fold,
        model,
        sizes,
        work,
        folder,
        steps=0,
        shares=published_results.SHARES,
    ):
        self.dataset, self.data_dir, self.fold = dataset, data_dir, fold
        self.model, self.sizes, self.work = model, sizes, work
        self.folder, self.steps, self.shares = Path(folder), steps, shares

    @property
    def settings(self):
        """Settings that all results of one table must share."""
        return {"sizes": self.work, "training_steps": self.recipe(0).training.steps}

    def config(self, seed, method="rfad", per_class=None, labels=None):
        """Returns the configuration of a seed and of a method's distillation.

        ``aligned`` is RFAD as ``--preset=transfer`` has it: its steps draw the views
        that networks are trained on. ``rfad`` has the published loss.
        """
        changes = CHANGES[self.work]
        config = audiodd_jax.for_dataset(
            self.dataset,
            method="rfad" if method == "aligned" else method,
            seed=seed,
            data__data_dir=self.data_dir,
            data__fold=self.fold,
            data__allow_partial=self.dataset in PARTIAL,
        )
        parts = [changes.get("all", {}), changes.get(method, {})]
        if method in (*REGRESSION, "aligned"):
            parts.append(presets.PRESETS["transfer"])
        if method == "aligned":
            parts.append(presets.PRESETS_OF_METHODS["transfer", "rfad"])
        if method in TRAINS_AS_REAL and labels != "hard":
            parts.append({"teacher.networks": 2, "coreset.views": 20})
        if labels == "hard":
            parts.append(_HARD)
        if per_class:
            parts.append({"coreset.samples_per_class": per_class})
        return fields.replace(config, {k: v for part in parts for k, v in part.items()})

    def recipe(self, seed, method="", labels="hard"):
        """Returns the training recipe on real clips or on a method's coreset."""
        changes = CHANGES[self.work].get(self.model, {})
        steps = {"training.steps": self.steps} if self.steps else {}
        as_real = method in ("", *TRAINS_AS_REAL) or labels == AS_REAL
        norm = {} if as_real else {"model.norm": OTHER_NORM[self.model]}
        config = presets.for_model(self.config(seed), self.model, training__seeds=1)
        return fields.replace(config, {**changes, **steps, **norm})

    @functools.cached_property
    def data(self):
        """The dataset, with the same preprocessing for all runs."""
        return audiodd_jax.prepare(self.config(0))

    def count(self, text):
        """Converts a budget to a number of clips."""
        return rounds.clips_in(text, self.data.num_train, self.data.num_classes)

    @functools.cached_property
    def ladder(self):
        """Budgets of active learning in rising order: coresets' sizes and shares."""
        texts = [f"{size}/class" for size in self.sizes] + list(self.shares)
        by_clips = {self.count(text): text for text in texts}
        available = self.data.train.labels.size
        return tuple(by_clips[n] for n in sorted(by_clips) if n <= available)

    def everything(self, seed):
        """Trains the network on all training clips."""
        rows = np.arange(self.data.train.labels.size)
        subset = subsets.Subset()
        source = source_lib.subset_source(subset, rows, self.data, seed)
        return self._trained(self.recipe(seed), source, f"all-seed{seed}")

    def choice(self, acquisition, seed):
        """Trains the network on clips that a function selects, at each budget."""
        config = fields.replace(
            self.recipe(seed),
            {
                **presets.ACTIVE_DEFAULTS,
                "active.acquisition": acquisition,
                "active.budgets": self.ladder,
                "active.initial": f"{max(1, min(self.sizes) // 2)}/class",
            },
        )
        result = active.learn(config, self.data, self._choice_folder(acquisition, seed))
        by_clips = lambda name: {
            row["counted"]: row[name] for row in result["rounds"] if name in row
        }
        return Outcome(
            by_clips("test_accuracy"),
            result["wall_seconds"],
            validation=by_clips("validation_accuracy"),
        )

    def _choice_folder(self, acquisition, seed):
        return self.folder / self.model / f"{acquisition}-seed{seed}"

    def coreset(self, method, per_class, labels, seed):
        """Trains the network on a method's coreset.

        Args:
          labels: ``teacher``, ``hard``, or ``AS_REAL``: hard labels for methods whose
            ``hard`` rows have another norm.
        """
        distilled_with = labels if method in TRAINS_AS_REAL else "hard"
        # RFAD's coreset does not depend on the labels, so both rows share a
        # distillation.
        shared = "teacher" if method == "rfad" else distilled_with
        folder = self._coresets() / f"{method}-{per_class}-{shared}-seed{seed}"
        run = audiodd_jax.distill(self.config(seed, method, per_class, shared), folder)
        return self._on_coreset(run, method, labels, seed, folder.name)

    def bought(self, acquisition, share, per_class, seed):
        """Trains the network on a coreset from the labels that a function acquired."""
        acquired = self._choice_folder(acquisition, seed)
        if not (acquired / "result.json").exists():
            raise UserError(f"{acquisition} has acquired no labels with seed {seed}")
        config = fields.replace(
            self.config(seed, "rfad", per_class),
            {"labels.run": str(acquired), "labels.budget": share},
        )
        name = f"rfad-{per_class}-from-{acquisition}-{share.rstrip('%')}-seed{seed}"
        folder = self.folder / self.model / "bought" / name
        run = audiodd_jax.distill(config, folder)
        return self._on_coreset(run, "rfad", "teacher", seed, name)

    def _coresets(self):
        return self.folder / "coresets"

    def _on_coreset(self, run: distill.Run, method, labels, seed, name):
        """Trains the network on a coreset, with its teacher's labels or hard ones."""
        coreset, recipe = run.coreset, self.recipe(seed, method, labels)
        if labels == "teacher":
            source = source_lib.network_source(coreset, recipe.training)
        else:
            source = source_lib.coreset_source(coreset.unpack(), "hard")
        outcome = self._trained(recipe, source, f"{name}-{labels}", len(coreset.labels))
        teacher = run.result["teacher"] or {}
        seconds = run.result["wall_seconds"] + teacher.get("labelling_seconds", 0.0)
        stored = run.result["bytes"]
        if labels == "hard" and coreset.teacher_labels is not None:
            stored -= coreset.teacher_labels.nbytes
        return outcome._replace(seconds=outcome.seconds + seconds, stored=stored)

    def _trained(self, recipe, source, name, size=None):
        folder = self.folder / self.model / name
        trained = train_lib.train_source(recipe, self.data, source, folder)
        size = size or trained.result["num_samples"]
        return Outcome({size: trained.scores.mean}, trained.result["wall_seconds"])
