"""The card of a training: what learnt from what, and how well."""

from typing import Any

from audiodd_jax.config import Config
from audiodd_jax.report import evaluation_table

_TEMPLATE = """\
# {dataset}: {model} on {what}

{parameters:,} parameters, trained for {steps} steps on {num_samples:,} spectrograms:
{percent:.2f} % of the {num_train:,} training clips of {dataset} {dataset_version}.

| | on the test split |
|---|---|
| accuracy | {accuracy} |
| 95 % interval of the mean | {interval} |
| macro F1 | {macro_f1:.3f} |
| each seed | {each} |

Mean ± standard deviation over seeds, from {seed} on; {wall_seconds:.0f} s. The test
split was read once, for this table.

| class | accuracy (%) |
|---|---|
{classes}

![confusion](figures/confusion.png)
![curves](figures/curves.png)

## Use

```python
import audiodd_jax

networks = audiodd_jax.load_networks("networks.npz")
x = networks.normalize(waveform, sample_rate)  # your sounds, as they expect them
probabilities = networks.predict(x)
```

## Recipe

{recipe}

Licence of the data: {licence}; what is learnt from recordings may fall under theirs.
"""


def render(result: dict[str, Any], accuracy: str, config: Config) -> str:
    """The card as Markdown.

    Args:
      result: what ``result.json`` holds.
      accuracy: mean and deviation.
      config: model and training.
    """
    settings = {**vars(config.model), **vars(config.training)}
    augment = vars(settings.pop("augment"))
    settings |= {name: value for name, value in augment.items() if value}
    share = lambda value: "none" if value is None else f"{100 * value:.1f}"
    interval = result["test_accuracy_interval95"]
    values = {
        "accuracy": accuracy,
        "percent": 100 * result["fraction_of_train"],
        "interval": "one seed" if interval is None else f"± {100 * interval:.1f} %",
        "each": ", ".join(f"{100 * a:.1f} %" for a in result["test_accuracies"]),
        "what": evaluation_table.told(result["learns_from"]),
        "classes": "\n".join(
            f"| {name} | {share(value)} |"
            for name, value in result["per_class_accuracy"].items()
        ),
        "recipe": ", ".join(f"{name} {value}" for name, value in settings.items()),
    }
    return _TEMPLATE.format(**{**result, **values})
