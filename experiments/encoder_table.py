"""Compares coresets for an encoder with selected clips, by dataset and size.

    python experiments/encoder_table.py --dataset=spoken_digit --data_dir=/data/fsdd \
        --encoder=speech_embedding --sizes=1,2,5 --seeds=3

Every coreset is scored on the test clips by a linear probe, kernel regression and
nearest neighbours on its embeddings; --other scores it with another encoder, too.
Finished runs are not repeated, and interrupted ones resume.
"""

import statistics
from pathlib import Path

from absl import app, flags, logging

import audiodd_jax
from audiodd_jax.commands import common
from audiodd_jax.commands.evaluate import compare
from audiodd_jax.commands.main import explained
from audiodd_jax.config import fields
from audiodd_jax.coreset.dataset import coreset_config
from audiodd_jax.report import tables

_DATASET = flags.DEFINE_string("dataset", "tones", "dataset")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder with the recordings")
_PARTIAL = flags.DEFINE_bool("allow_partial", False, "accept an incomplete dataset")
_FOLD = flags.DEFINE_integer("fold", 0, "test fold; 0: the last one")
_ENCODER = flags.DEFINE_string("encoder", "speech_embedding", "encoder")
_OTHER = flags.DEFINE_string("other", "", "another encoder to score with; empty: none")
_SIZES = flags.DEFINE_list("sizes", ["1", "2", "5"], "samples per class")
_SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds")
_ALL = flags.DEFINE_bool("all_clips", True, "also score all training clips")
_WORKDIR = flags.DEFINE_string("workdir", "runs/encoder", "folder of the runs")
_METHODS = flags.DEFINE_list(
    "methods",
    ["random", "herding", "medoids", "rfad", "rfad-mse", "lgm", "embeddings"],
    "methods to compare",
)
# Their choice does not depend on the seed.
_FIXED = ("herding", "k_center", "medoids")
_SETTINGS = {
    "rfad-mse": {"rfad__loss": "mse"},
    "embeddings": {"encoder__distil": "embeddings"},
}
_PROTOCOLS = ("linear", "krr", "knn")


def distilled(method, size, seed):
    """Distils or selects a coreset."""
    changes = _SETTINGS.get(method, {"method": method})
    config = audiodd_jax.for_dataset(
        _DATASET.value,
        encoder=_ENCODER.value,
        seed=seed,
        coreset__samples_per_class=size,
        data__data_dir=_DATA_DIR.value,
        data__allow_partial=_PARTIAL.value,
        data__fold=_FOLD.value,
        **changes,
    )
    encoder = Path(_ENCODER.value.replace(":", "-")).parts[-2:]
    name = "-".join((_DATASET.value, *encoder, method, str(size), f"seed{seed}"))
    return audiodd_jax.distill(config, Path(_WORKDIR.value) / name)


def scored(run, against=()):
    """Scores a coreset by every protocol; returns the scores by protocol and clips."""
    config = coreset_config(run.coreset, run.path)
    found = {}
    encoders = ["", *filter(None, [_OTHER.value])]
    for other in encoders:
        if other and run.coreset.has_embeddings:
            continue
        given = fields.replace(config, {"encoder.name": other or config.encoder.name})
        recipe = {"training.seeds": 1}
        rows = compare(run.coreset, _PROTOCOLS, against, given, recipe)
        for row in rows:
            column = f"{row.protocol}, other" if other else row.protocol
            found[column, row.learns_from] = row.scores.mean
    return found


def cell(values):
    """Formats scores in %, with their deviation over seeds."""
    deviation = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{deviation}"


def main(_):
    logging.set_verbosity(logging.WARNING)
    common.keep_compiled(None)
    rows, baseline = [], {}
    for size in map(int, _SIZES.value):
        for method in _METHODS.value:
            seeds = range(1 if method in _FIXED else _SEEDS.value)
            scores, seconds = [], []
            for seed in seeds:
                run = distilled(method, size, seed)
                against = ("all",) if _ALL.value and not baseline else ()
                found = scored(run, against)
                if against:
                    baseline = {k: v for (k, of), v in found.items() if of == "all"}
                scores.append({k: v for (k, of), v in found.items() if of != "all"})
                seconds.append(run.result["wall_seconds"])
            columns = {k: cell([one[k] for one in scores]) for k in scores[0]}
            took = f"{statistics.fmean(seconds):.0f}"
            rows.append({"per class": size, "method": method, **columns, "s": took})
            print(rows[-1], flush=True)
    everything = {k: cell([v]) for k, v in baseline.items()}
    if everything:
        rows.append({"per class": "all", "method": "all clips", **everything})
    columns = list(rows[0])
    cells = [[str(row.get(column, "")) for column in columns] for row in rows]
    print("", tables.markdown(tables.Table(columns, cells)), sep="\n")


if __name__ == "__main__":
    explained(lambda: app.run(main))
