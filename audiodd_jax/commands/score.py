"""``audiodd score``: what a coreset's images and labels are worth to networks.

Networks learn from the coreset, and from real clips that are stored in the same way:
random clips, herded clips, and clips chosen by the acquisition function that is best in
validation. All have labels of the same kind, the same bytes, augmentation and steps,
and the same learning rates to choose from. Each arm's rate, like every other choice, is
decided by validation clips; test clips are scored once, after the last step.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from audiodd_jax.active_learning import rivals
from audiodd_jax.command_line import CommandLine, names, table
from audiodd_jax.commands.common import resumable, start
from audiodd_jax.config import Config, fields, presets
from audiodd_jax.config.names import file_stem
from audiodd_jax.config.user_paths import local
from audiodd_jax.coreset import selection, storage, subsets
from audiodd_jax.coreset.dataset import coreset_config, load_data
from audiodd_jax.coreset.file import Coreset, load_coreset
from audiodd_jax.coreset.sizes import class_order
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.coreset.views import Views
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.flags import for_model
from audiodd_jax.networks import models
from audiodd_jax.report import score_table
from audiodd_jax.report.score_table import Arm, Scored
from audiodd_jax.runtime import mirror, progress
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import read_json
from audiodd_jax.training import rate_search, teacher
from audiodd_jax.training import scores as scores_lib
from audiodd_jax.training import source as source_lib
from audiodd_jax.training.rate_search import RateSearch
from audiodd_jax.training.source import Source

_log = logging.getLogger(__name__)

# Networks of the teacher that labels single spectrograms, if the coreset has none.
_TEACHERS = 2


def run(line: CommandLine) -> None:
    """Scores as the command line says, and prints the table."""
    flags, (path,) = line.flags, map(Path, line.arguments)
    coreset, folder = _opened(path)
    config = line.configure(coreset_config(coreset, folder))
    recipe = {name: fields.get(config, name) for name in line.changed(*_RECIPE)}
    settings = {
        name: presets.for_model(config, name, **recipe) for name in names(flags.model)
    }
    default = Path("runs") / f"{datasets.title_of(config.data)}-score"
    out = Path(flags.out or (folder / "score" if folder else default))
    if flags.dry_run:
        _plan(coreset, settings)
        return
    start(flags, config.data)
    with resumable(out):
        scored = _score(coreset, settings, out)
    print(score_table.text(scored), "", sep="\n")
    table([("table and picture", str(out))])


# Groups of settings that change the recipe of every network.
_RECIPE = ("model", "training")


def _opened(path: Path) -> tuple[Coreset, Path | None]:
    """Returns a coreset, and its run directory if ``path`` is one."""
    mirror.fetch(path)
    if not path.is_dir():
        return load_coreset(path), None
    file = path / "result.json"
    folds = read_json(file).get("folds") if file.exists() else None
    if folds:
        first = path / f"fold{folds[0]['fold']}"
        raise UserError(f"{path} has a coreset per fold: score one of them, {first}")
    return load_coreset(path / "coreset.npz"), path


@standard_numerics()
def score(
    coreset: Coreset | str | Path,
    out: str | Path,
    networks: Sequence[str] = ("convnet",),
    cache_dir: Path | None = None,
    **changes: Any,
) -> Scored:
    """Compares networks trained on a coreset with networks trained on real clips.

    The same call resumes an interrupted one. Finished trainings are not repeated.

    Args:
      coreset: a coreset, or the path of its file or run directory.
      out: folder of the trainings, the table and the picture.
      networks: ``convnet``, ``resnet18``, ``linear``, or ``package.module:factory``.
      cache_dir: folder for downloads and features.
      **changes: settings (``training__steps=100``) and plain flags of ``audiodd train``
        (``steps=100``), as in ``for_model``.

    Raises:
      UserError: the dataset cannot be used, has other classes or no validation clips,
        or a name is unknown.
      Interrupted: on SIGTERM or SIGINT; the state is saved.
    """
    folder = None
    if not isinstance(coreset, Coreset):
        coreset, folder = _opened(local(coreset))
    config = fields.with_cache(coreset_config(coreset, folder), cache_dir)
    settings = {name: for_model(config, name, **changes) for name in networks}
    return _score(coreset, settings, local(out))


def _score(coreset: Coreset, settings: Mapping[str, Config], out: Path) -> Scored:
    """Scores by the settings of each network; writes the table and the picture."""
    if not settings:
        raise UserError("--model names at least one network")
    settings = {
        name: dataclasses.replace(config, features=coreset.features)
        for name, config in settings.items()
    }
    for config in settings.values():
        fields.validate(config)
    given = (config.data, config.features, True, config.evaluation.metric)
    data = load_data(coreset, *given)
    if not len(data.validation.labels):
        raise UserError(
            "score chooses learning rates on validation clips, which this dataset "
            "lacks: raise --config.data.validation_fraction"
        )
    arms: list[Arm] = []
    for name, config in settings.items():
        arms += Arena(config, coreset, data, out / file_stem(name), {}).arms()
    size = f"{len(coreset.labels)} spectrograms"
    title = f"{data.title}, {coreset.metadata['method']}, {size}"
    notes = _kinds(coreset)[1]
    scored = Scored(title, data.metric, data.licence, tuple(arms), tuple(notes))
    with progress.waiting("drawing"):
        score_table.write(scored, coreset.class_names, out)
    mirror.publish(out)
    return scored


def _kinds(coreset: Coreset) -> tuple[list[str], list[str]]:
    """Returns the kinds of labels that are compared, and notes about them."""
    single = "Single soft labels are by a teacher that was trained on all clips"
    if _is_learnt(coreset):
        single += ", except the coreset's, which are its own learnt labels"
    if _views_of(coreset):
        return ["hard", "soft", "views"], [f"{single}."]
    without = "The coreset has no stored views, so no row has them."
    return ["hard", "soft"], [f"{single}.", without]


def _views_of(coreset: Coreset) -> int:
    """Returns the number of stored views of each spectrogram."""
    if coreset.teacher_labels is None:
        return 0
    return coreset.metadata["views"]["count"]


def _is_learnt(coreset: Coreset) -> bool:
    """Returns whether a coreset's labels were learnt."""
    settings = coreset_config(coreset).coreset
    return settings.learn_labels or settings.solve_labels


def _num_bytes(members: Coreset, labels: str, views: int, is_learnt: bool) -> int:
    """Returns the size of a set's images, and of labels of a kind, as stored."""
    if labels == "hard":
        stored = {"classes": storage.smallest(members.classes)}
    elif labels == "soft" and is_learnt:
        stored = storage.encode("label", members.labels, members.storage)
    else:
        count = len(members.unpacked_classes) * (views if labels == "views" else 1)
        given = (members.storage, coreset_config(members).views.top_k, members.has_tags)
        shape = count, len(members.class_names)
        stored = storage.encode_views(np.zeros(shape, np.float16), *given)
    return members.file_bytes.images + sum(array.nbytes for array in stored.values())


class Arena(NamedTuple):
    """A coreset and the real clips that it is compared with, for one network.

    Attributes:
      config: data, network and training.
      folder: folder of the trainings.
      searches: trainings with each kind of labels that were needed so far.
    """

    config: Config
    coreset: Coreset
    data: Dataset
    folder: Path
    searches: dict[str, RateSearch]

    @property
    def sizes(self) -> Int[np.ndarray, " c"]:
        """Stored images of each class in a set of real clips."""
        stored = np.bincount(self.coreset.classes, minlength=self.data.num_classes)
        return np.minimum(
            stored, self.data.class_clips // self.coreset.packing.per_image
        )

    @property
    def seeds(self) -> range:
        """Seeds of the networks, and of the clips that are drawn."""
        first = self.config.seed
        return range(first, first + self.config.training.seeds)

    def arms(self) -> list[Arm]:
        """Trains and scores all arms; finished trainings are read."""
        arms = [self._arm("hard", "all", [None for _ in self.seeds])]
        kinds, sets = _kinds(self.coreset)[0], self._sets()
        for labels in kinds:
            arms += [self._arm(labels, name, sets[name]) for name in sets]
        return arms

    def _sets(self) -> dict[str, list[Coreset]]:
        """Returns the coreset, and real clips that are stored like it, of each seed."""
        search, count = self._search("hard"), len(self.seeds)
        hard = lambda members: self._training_set("hard", members, "clips")
        random = [self._chosen("random", seed) for seed in self.seeds]
        choices = [
            rivals.choose(
                search,
                seed,
                self.sizes * self.coreset.packing.per_image,
                hard(members),
                lambda rows: hard(self._stored(rows)),
            )
            for seed, members in zip(self.seeds, random, strict=True)
        ]
        best = rivals.best(choices)
        _log.info("best acquisition function in validation: %s", best)
        return {
            "coreset": [self.coreset] * count,
            "random": random,
            "herding": [self._chosen("herding", self.config.seed)] * count,
            best: [self._stored(one.rows[best]) for one in choices],
        }

    def _arm(self, labels: str, name: str, sets: Sequence[Coreset | None]) -> Arm:
        """Trains a network per seed on its set; None stands for all training clips."""
        search, results = self._search(labels), []
        rates, shown = search.rates, score_table.in_words(labels, name)
        for k, seed in enumerate(self.seeds):
            if not k or sets[k] is not sets[0]:
                source = self._training_set(labels, sets[k], name)
            folder = f"{name}-{labels}-seed{seed}"
            results.append(search.scored(source, seed, rates, shown, folder))
            rates = [results[0]["learning_rate"]]  # that of the first seed
        scores = scores_lib.joined([scores_lib.from_summary(r) for r in results])
        first, num_bytes = sets[0], None
        if first is not None:
            given = (_views_of(self.coreset), self._keeps_labels(first))
            num_bytes = _num_bytes(first, labels, *given)
        return Arm(
            network=self.config.model.name,
            labels=labels,
            learns_from=name,
            num_bytes=num_bytes,
            scores=scores._replace(metric=self.data.metric),
            learning_rate=results[0]["learning_rate"],
            validation=results[0]["validation_accuracies"],
            seconds=sum(result["wall_seconds"] for result in results),
        )

    def _search(self, labels: str) -> RateSearch:
        """Returns the trainings with labels of a kind."""
        if labels not in self.searches:
            changes = {
                "training.labels": "hard" if labels == "hard" else "soft",
                "training.teacher_labels": labels == "views",
            }
            config = fields.replace(self.config, changes)
            search = RateSearch(config, self.data, self.folder, {})
            self.searches[labels] = search
        return self.searches[labels]

    def _chosen(self, name: str, seed: int) -> Coreset:
        """Returns random or herded clips that are stored like the coreset."""
        networks = self.config.network, self.config.evaluation.networks
        clips = self.sizes * self.coreset.packing.per_image
        subset = Subset(name, per_class=tuple(clips.tolist()))
        rows = subsets.choose(subset, self.data, subsets.Embedding(*networks), seed)
        return self._stored(rows)

    def _stored(self, rows: Int[np.ndarray, " k"]) -> Coreset:
        """Stores clips, which are in class order, like the coreset."""
        packing = self.coreset.packing.setting
        arrays = selection.stored(self.data.train, rows, self.sizes, packing)
        members = dataclasses.replace(
            self.coreset,
            images=np.asarray(arrays.images),
            labels=np.asarray(arrays.labels),
            teacher_labels=None,
            stored_views=None,
            made_for=class_order(self.sizes),
        )
        return members.read_back()  # as precise as the coreset

    def _training_set(self, labels: str, members: Coreset | None, name: str) -> Source:
        """Returns a set with labels of a kind, or all clips, as a training set."""
        if members is None:
            return source_lib.subset_source(Subset(), np.array([], int), self.data, 0)
        arrays = members.unpack()
        if labels == "views":
            if members.teacher_labels is None:
                views = self._labelled(arrays.images, _views_of(self.coreset))
            else:
                views = members.views()
            return source_lib.views_source(views, name)
        if labels == "hard" or self._keeps_labels(members):
            return source_lib.coreset_source(arrays, name, members.has_tags)
        labelled = source_lib.views_source(self._labelled(arrays.images, 0), name)
        return labelled._replace(is_augmented=False)

    def _keeps_labels(self, members: Coreset) -> bool:
        """Returns whether single soft labels of a set are its own, not a teacher's."""
        return members is self.coreset and _is_learnt(members)

    def _labelled(self, images: Float[Array, "s f t 1"], views: int) -> Views:
        """Labels views of spectrograms, or themselves if ``views`` is 0."""
        recipe = coreset_config(self.coreset)
        recipe = fields.with_cache(recipe, self.config.data.cache_dir)
        teachers = recipe.teacher.networks or _TEACHERS
        changes = {"coreset.views": views, "teacher.networks": teachers}
        return teacher.label(images, fields.replace(recipe, changes), self.data).views


def _plan(coreset: Coreset, settings: Mapping[str, Config]) -> None:
    """Prints how many trainings the same call without ``--dry_run`` takes."""
    kinds, notes = _kinds(coreset)
    size = f"{len(coreset.labels)} spectrograms of {coreset.metadata['dataset']}"
    rows = [("coreset", size)]
    for name, config in settings.items():
        more = config.training.seeds - 1
        arms = 1 + len(kinds) * 4  # the coreset and three sets of real clips
        as_active = fields.replace(config, presets.ACTIVE_DEFAULTS)
        model = models.make(as_active.model, len(coreset.class_names))
        functions = len(rivals.functions_of(model))
        count = arms * (len(rate_search.MULTIPLES) + more)
        count += config.training.seeds * (functions + 1)
        steps = f"{config.training.steps} steps each"
        rows.append((name, f"{arms} arms, at most {count} trainings of {steps}"))
    rows += [("note", note) for note in notes]
    table(rows)
