"""What a network can learn from, as runs that resume: clips, chosen clips, coresets.

Every contender trains the same network by the same recipe, and is scored on the test
split once. A run that is finished is read, an interrupted one goes on.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import published_results

import audiodd_jax
from audiodd_jax.active_learning import budgets
from audiodd_jax.commands import active, distill, recorded_training
from audiodd_jax.config import fields, presets
from audiodd_jax.config.names import REGRESSION, SELECTION
from audiodd_jax.coreset import subsets
from audiodd_jax.errors import UserError

# Changes over the datasets' and networks' own settings: of everything, of a method's
# distillation, of a network's training. The ConvNet keeps its recipe: all clips of
# Arabic Speech Commands give 77 % after 200 steps, 90 % after its 500: less training
# would favour coresets, whose soft labels are learnt sooner.
_SMALL_MAPS = {"features.n_mels": 32, "features.frames": 64, "evaluation.seeds": 1}
CHANGES = {
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
# Spectrograms of DC, DSA and DM have other statistics than real clips, which batch norm
# learns: small coresets want another norm, large ones do not. The table has both.
OTHER_NORM = {"convnet": "instance", "resnet18": "group"}
# Hard labels, and the norm that the network has on real clips.
AS_REAL = "hard-real-norm"
TRAINS_AS_REAL = (*REGRESSION, *SELECTION)
# With a teacher's labels for random views of each spectrogram, or its own hard ones.
_HARD = {"teacher.networks": 0, "coreset.views": 0}


class Outcome(NamedTuple):
    """What a run found.

    Attributes:
      accuracies: on the test split, by number of labelled clips.
      seconds: of the run and those that it is built on.
      stored: bytes of the coreset, or None for real clips.
      validation: accuracies on the validation clips, by number of labelled clips.
    """

    accuracies: dict[int, float]
    seconds: float
    stored: int | None = None
    validation: dict[int, float] | None = None


class Contenders:
    """The runs of one network on one dataset.

    Attributes:
      dataset: of the registry.
      data_dir: where its recordings lie.
      fold: test fold; 0: the last one.
      model: ``convnet`` or ``resnet18``.
      sizes: spectrograms per class of the coresets, largest first.
      work: one of ``CHANGES``.
      place: folder of the runs.
      steps: of training the network; 0: those of ``work``.
    """

    def __init__(self, dataset, data_dir, fold, model, sizes, work, place, steps=0):
        self.dataset, self.data_dir, self.fold = dataset, data_dir, fold
        self.model, self.sizes, self.work = model, sizes, work
        self.place, self.steps = Path(place), steps

    @property
    def settings(self):
        """What results must have in common to stand in one table."""
        return {"sizes": self.work, "training_steps": self.recipe(0).training.steps}

    def config(self, seed, method="rfad", per_class=None, labels=None):
        """The configuration of a seed, and of a method's distillation."""
        changes = CHANGES[self.work]
        config = audiodd_jax.for_dataset(
            self.dataset,
            method=method,
            seed=seed,
            data__data_dir=self.data_dir,
            data__fold=self.fold,
            data__allow_partial=self.dataset == "urbansound8k",
        )
        parts = [changes.get("all", {}), changes.get(method, {})]
        if method in REGRESSION:
            parts.append(presets.PRESETS["transfer"])
        if method in TRAINS_AS_REAL and labels != "hard":
            parts.append({"teacher.networks": 2, "coreset.views": 20})
        if labels == "hard":
            parts.append(_HARD)
        if per_class:
            parts.append({"coreset.samples_per_class": per_class})
        return fields.replace(config, {k: v for part in parts for k, v in part.items()})

    def recipe(self, seed, method="", labels="hard"):
        """How the network is trained, on real clips or on a method's coreset."""
        changes = CHANGES[self.work].get(self.model, {})
        steps = {"training.steps": self.steps} if self.steps else {}
        as_real = method in ("", *TRAINS_AS_REAL) or labels == AS_REAL
        norm = {} if as_real else {"model.norm": OTHER_NORM[self.model]}
        config = presets.for_model(self.config(seed), self.model, training__seeds=1)
        return fields.replace(config, {**changes, **steps, **norm})

    @functools.cached_property
    def data(self):
        """The dataset, with one preprocessing for all."""
        return audiodd_jax.prepare(self.config(0))

    def count(self, text):
        """The number of clips of a budget."""
        return budgets.clips(text, self.data.num_train, self.data.num_classes)

    @functools.cached_property
    def ladder(self):
        """Budgets of active learning in rising order: coresets' sizes, and shares."""
        texts = [f"{size}/class" for size in self.sizes] + list(
            published_results.SHARES
        )
        found = {self.count(text): text for text in texts}
        there = self.data.train.labels.size
        return tuple(found[clips] for clips in sorted(found) if clips <= there)

    def everything(self, seed):
        """The network on all training clips."""
        rows = np.arange(self.data.train.labels.size)
        subset = subsets.Subset()
        source = recorded_training.subset_source(subset, rows, self.data, seed)
        return self._trained(self.recipe(seed), source, f"all-seed{seed}")

    def choice(self, acquisition, seed):
        """The network on clips that an acquisition function chose, at each budget."""
        config = fields.replace(
            self.recipe(seed),
            {
                **presets.ACTIVE_DEFAULTS,
                "active.acquisition": acquisition,
                "active.budgets": self.ladder,
                "active.initial": f"{max(1, min(self.sizes) // 2)}/class",
            },
        )
        result = active.learn(config, self.data, self._choice_place(acquisition, seed))
        of = lambda name: {
            row["counted"]: row[name] for row in result["rounds"] if name in row
        }
        seconds = result["wall_seconds"]
        return Outcome(of("test_accuracy"), seconds, None, of("validation_accuracy"))

    def _choice_place(self, acquisition, seed):
        return self.place / self.model / f"{acquisition}-seed{seed}"

    def coreset(self, method, per_class, labels, seed):
        """The network on a method's coreset.

        Args:
          method: of distillation or selection.
          per_class: spectrograms per class.
          labels: ``teacher``, ``hard``, or ``AS_REAL``: hard too, where ``hard`` has
            another norm.
          seed: of everything.
        """
        own = labels if method in TRAINS_AS_REAL else "hard"
        # With a teacher's labels the coreset is the same: one distillation for both.
        shared = "teacher" if method == "rfad" else own
        folder = self._coresets() / f"{method}-{per_class}-{shared}-seed{seed}"
        run = audiodd_jax.distill(self.config(seed, method, per_class, shared), folder)
        return self._on_coreset(run, method, labels, seed, folder.name)

    def bought(self, acquisition, share, per_class, seed):
        """The network on a coreset from the labels that a function had bought."""
        run = self._choice_place(acquisition, seed)
        if not (run / "result.json").exists():
            raise UserError(f"{acquisition} has not bought labels of seed {seed}")
        config = fields.replace(
            self.config(seed, "rfad", per_class),
            {"labels.run": str(run), "labels.budget": share},
        )
        name = f"rfad-{per_class}-from-{acquisition}-{share.rstrip('%')}-seed{seed}"
        found = audiodd_jax.distill(config, self.place / self.model / "bought" / name)
        return self._on_coreset(found, "rfad", "teacher", seed, name)

    def _coresets(self):
        return self.place / "coresets"

    def _on_coreset(self, run: distill.Run, method, labels, seed, name):
        """The network on a coreset, by its teacher's labels or by hard ones."""
        coreset, recipe = run.coreset, self.recipe(seed, method, labels)
        if labels == "teacher":
            source = recorded_training.network_source(coreset, recipe.training)
        else:
            source = recorded_training.coreset_source(coreset.unpack(), "hard")
        found = self._trained(recipe, source, f"{name}-{labels}", len(coreset.labels))
        teacher = run.result["teacher"] or {}
        seconds = run.result["wall_seconds"] + teacher.get("labelling_seconds", 0.0)
        stored = run.result["bytes"]
        if labels == "hard" and coreset.teacher_labels is not None:
            stored -= coreset.teacher_labels.nbytes
        return found._replace(seconds=found.seconds + seconds, stored=stored)

    def _trained(self, recipe, source, name, size=None):
        folder = self.place / self.model / name
        trained = recorded_training.train(recipe, self.data, source, folder)
        size = size or trained.result["num_samples"]
        return Outcome({size: trained.scores.mean}, trained.result["wall_seconds"])
