"""The hours that the rows of a table take, as ``table.py --plan`` prints them.

Steps are timed on this machine. Early stopping shortens training, so rows take at most
as long as planned. Rows with finished runs take as long as these.
"""

import collections

import jax
import numpy as np

from audiodd_jax.config import fields
from audiodd_jax.distillation import loop
from audiodd_jax.networks import models
from audiodd_jax.report import tables
from audiodd_jax.training import fit, programs, teacher

# Chunks of steps that are timed, of which the first compiles.
_CHUNKS = 2


def table(outcomes, request):
    """Returns the plan as Markdown: rows, runs that are not finished, hours."""
    runs, left, done = outcomes.runs, collections.Counter(), collections.Counter()
    keys = [key for seed in request.seeds for key in request.keys(runs.sizes, seed)]
    for key in keys:
        (done if key in outcomes.results else left)[key[:-1]] += 1
    seconds = _seconds(runs, request) if left else {}
    cells, total = [], 0.0
    for row in dict.fromkeys(key[:-1] for key in keys):
        known = [
            outcomes.results[key]
            for key in keys
            if key[:-1] == row and key in outcomes.results
        ]
        each = np.mean([result.seconds for result in known]) if known else seconds[row]
        hours = left[row] * each / 3600
        total += hours
        name = " ".join(map(str, row[1:])).replace("_", " ") or "all clips"
        cells.append(
            (name, str(done[row]), str(left[row]), f"{each / 60:.1f}", f"{hours:.2f}")
        )
    cells.append(("all rows", "", str(left.total()), "", f"{total:.2f}"))
    columns = (
        f"{runs.dataset}, {runs.model}",
        "finished",
        "left",
        "minutes each",
        "hours left",
    )
    return tables.markdown(tables.Table(columns, cells))


def _seconds(runs, request):
    """Returns the seconds of a run of each row, without what another row shares."""
    start, step = training(runs)
    recipe, data = runs.recipe(0), runs.data
    networks = start + recipe.training.steps * step
    # A pass over the pool without gradients, for each round but the last.
    scoring = len(data.train.labels) / recipe.training.batch_size * step / 3
    result = {("everything",): networks}
    for name in request.acquisitions:
        rounds = 1 + len(runs.ladder)
        result["choice", name] = start + rounds * (networks - start + scoring)
    for _, method, labels in request.coresets():
        for size in runs.sizes:
            key = ("coreset", method, size, labels)
            distils = method not in ("random",) and (method, labels) != ("rfad", "hard")
            result[key] = networks
            if distils:
                result[key] += distillation(runs, method, size)
    return result


def training(runs):
    """Times the steps of a network: the seconds of its start, and of a step."""
    recipe, data = runs.recipe(0), runs.data
    length = recipe.training.log_every
    changes = {"steps": _CHUNKS * length, "patience": 0, "eval_every": 0}
    changes = {f"training.{name}": value for name, value in changes.items()}
    settings = fields.replace(recipe, changes).training
    compiled = programs.make(recipe.model, settings, data)
    clips = fit.real_set(data.train, data.num_classes, settings)
    return _start_and_step(fit.fit(compiled, clips, 0).history, length)


def distillation(runs, method, per_class):
    """Times the steps of a method; returns the seconds of a distillation."""
    config, data = runs.config(0, method, per_class), runs.data
    length = config.loop.log_every
    changes = {"loop.steps": _CHUNKS * length, "loop.eval_every": 0}
    # An untrained teacher takes as long as a trained one.
    recipe = teacher.recipe_of(config)
    compiled = programs.make(recipe.model, recipe.training, data)
    networks = compiled.initial(
        jax.random.split(jax.random.key(0), recipe.training.seeds)
    )
    given = (networks.final, compiled.model, config.teacher.temperature, data.has_tags)
    short = fields.replace(config, changes)
    found = loop.distill(short, data, teacher=models.ensemble(*given))
    start, step = _start_and_step(found.history, length)
    return start + config.loop.steps * step


def _start_and_step(history, length):
    ends = [row["seconds"] for row in history if row["step"]]
    step = (ends[-1] - ends[-2]) / length
    return ends[-1] - _CHUNKS * length * step, step
