"""The card of a distillation: the coreset, its origin, and how to use it."""

from typing import Any

_TEMPLATE = """\
# {title}

{num_samples} spectrograms ({samples_per_class} per class, {classes} classes) {made}
by {method} from the {num_train:,} training clips of {dataset} {version}:
{percent:.2f} % of the clips, {bytes:,} bytes against {train_bytes:,} bytes of
16-bit audio.{pieces}

| | accuracy on the test split |
|---|---|
{scores}

Protocol `{protocol}`: kernel regression with {networks} fresh random networks of
width {width}, mean ± standard deviation over {seeds} draws of them. {kept} The test
split was read once, for this table.

![coreset](figures/coreset.png)
{curves}

## Data and licence

- Data: {dataset_title}, version {version}
- Test split: {split}
- Licence: {licence}; a coreset may fall under the licence of its recordings

## Use

```python
import audiodd_jax

coreset = audiodd_jax.load_coreset("coreset.npz")
coreset.images, coreset.labels  # {images_shape} and {labels_shape}
x = coreset.normalize(waveform, sample_rate)  # your sounds, as the coreset expects them
```

Images are log-mel spectrograms standardised with the constants in the artefact; labels
are soft and centred (a one-hot label is `one_hot - 1/{classes}`).

## Made with

```
{command}
```

## Limits

The accuracy above is that of kernel regression with networks like those that distilled
the coreset; other models may gain less. It does not cover sounds unlike {dataset},
other microphones, or classes beyond the {classes} named in the artefact.
"""

_PIECES = """

Each stored spectrogram holds {factor} shorter ones along time, which share its label:
`coreset.unfolded()` stretches them to full length, as all models here were trained."""
_KEPT = {"best": "the best by validation", "last": "the last"}


def render(values: dict[str, Any]) -> str:
    """The card as Markdown."""
    steps, factor = values["steps"], values["factor"]
    rows = [("distilled coreset", values["test"])]
    rows += [(f"initial {values['start']}", values["start_test"])]
    kept = (
        f"Distillation: seed {values['seed']}, {steps} steps, "
        f"{values['wall_seconds']:.0f} s; the coreset is "
        f"{_KEPT[values['keep']]}, at step {values['best_step']}."
    )
    if not steps:
        rows = [
            ("selected clips", values["test"]),
            ("random clips", values["start_test"]),
        ]
        kept = f"Selection: seed {values['seed']}."
    fields = {
        "made": "distilled" if steps else "selected",
        "pieces": _PIECES.format(factor=factor) if factor > 1 else "",
        "scores": "\n".join(f"| {name} | {value} |" for name, value in rows),
        "kept": kept,
        "curves": "![curves](figures/curves.png)" if steps else "",
    }
    return _TEMPLATE.format(**{**values, **fields})


_FOLDS_TEMPLATE = """\
# {dataset}: {samples_per_class} per class by {method}, every fold

Each of the {count} official folds is the test fold once, with a coreset distilled from
the others.
Mean ± standard deviation over folds, protocol `{protocol}`, seed {seed}.

| | accuracy (%) |
|---|---|
| distilled coreset | {distilled} |
| initial {start} | {started} |

| test fold | training clips | distilled (%) | initial (%) |
|---|---|---|---|
{rows}

- Data: {dataset} {dataset_version}
- Licence: {licence}; a coreset may fall under the licence of its recordings
- Each fold's run, coreset and card are in `fold1/` and so on
"""


def render_folds(result: dict[str, Any]) -> str:
    """The card of a run of every fold, as Markdown."""
    percent = lambda share: f"{100 * share:.1f}"
    spread = lambda name: f"{percent(result[name])} ± {percent(result[name + '_std'])}"
    rows = [
        f"| {row['fold']} | {row['num_train']:,} | {percent(row['test_accuracy'])} "
        f"| {percent(row['start_test_accuracy'])} |"
        for row in result["folds"]
    ]
    values = {
        "count": len(rows),
        "rows": "\n".join(rows),
        "distilled": spread("test_accuracy"),
        "started": spread("start_test_accuracy"),
        "start": "real clips" if result["start"] == "real" else "noise",
    }
    return _FOLDS_TEMPLATE.format(**{**result, **values})
