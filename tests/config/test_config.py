import dataclasses

import pytest

from audiodd_jax.config import Config, fields, names, presets
from audiodd_jax.data import datasets
from audiodd_jax.errors import UserError


@pytest.mark.parametrize("name", datasets.DATASETS)
@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_dataset_and_preset_is_valid(name, preset):
    resolved = presets.for_dataset(name, preset)
    fields.validate(resolved)
    assert resolved.data.name == name


def test_changes_override_the_preset_and_the_preset_overrides_the_dataset():
    changed = presets.for_dataset("tones", "source", network__width=7)
    assert changed.network.width == 7
    assert changed.rfad.networks == presets.PRESETS["source"]["rfad.networks"]


def test_round_trip():
    values = presets.for_dataset("spoken_digit", seed=5)
    assert fields.from_dict(dataclasses.asdict(values)) == values


def test_replace_leaves_the_original():
    original = Config()
    changed = fields.replace(original, {"loop.steps": 3})
    assert (changed.loop.steps, original.loop.steps) == (3, Config().loop.steps)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("loop.steps", 0, "loop.steps must be at least 1, not 0"),
        ("coreset.samples_per_class", 0, "at least 1"),
        ("coreset.factor", 0, "coreset.factor must be a number of at least 1, or two"),
        ("coreset.factor", "2x", "as in 2x2"),
        ("rfad.loss", "hinge", "mse or platt"),
        ("network.readout", "mean", "time_mean"),
        ("rfad.regularizer", 0.0, "positive"),
        ("augment.time_mask", 1.5, "between 0 and 1"),
        ("seed", -1, "at least 0"),
        ("seed", 2**32, "below 2"),
        ("data.split_seed", -1, "at least 0"),
        ("active.passes", 0, "active.passes must be at least 1, not 0"),
    ],
)
def test_bad_settings_are_named(name, value, words):
    with pytest.raises(UserError, match=words):
        fields.validate(fields.replace(Config(), {name: value}))


def test_a_selection_does_not_start_from_a_coreset():
    config = presets.for_dataset("tones", method="random", coreset__init="a.npz")
    with pytest.raises(UserError, match=r"does not start from .* coreset\.init=a\.npz"):
        fields.validate(config)


def test_unknown_names():
    with pytest.raises(UserError, match=r"unknown setting 'loop\.stepz'"):
        presets.for_dataset("tones", loop__stepz=1)
    with pytest.raises(UserError, match=r"unknown preset 'fast'; choose from default"):
        presets.for_dataset("tones", "fast")


def leaves(config, prefix=""):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field, value


# Checked where the data is known, or free text.
UNCONSTRAINED = {
    *("data.name", "data.variant", "data.data_dir", "data.cache_dir"),
    *("data.test_fraction", "data.validation_fraction"),
    *("features.sample_rate", "features.clip_seconds", "features.frames"),
    *("features.n_mels", "features.window_seconds", "features.n_fft"),
    *("features.f_min", "features.f_max", "network.weight_variance"),
    *("augment.background_snr_db", "training.augment.background_snr_db"),
    "views.augment.background_snr_db",
    *("evaluation.width", "active.budgets", "active.initial"),
    *("labels.run", "labels.budget", "labels.indices"),
    "encoder.input",
    "encoder.output",
    "encoder.scale",
    "encoder.offset",
    *("session.sounds", "session.known", "session.classes"),
}


def test_every_setting_documents_its_constraint():
    free = {
        name
        for name, field, value in leaves(Config())
        if field.metadata.get("constraint") is None and not isinstance(value, bool)
    }
    assert free == UNCONSTRAINED


@pytest.mark.parametrize("place", list(leaves(Config())), ids=lambda leaf: leaf[0])
def test_every_default_is_allowed(place):
    name, field, value = place
    constraint = field.metadata.get("constraint")
    assert constraint is None or constraint.holds(value), name


def test_names_agree_with_their_implementations():
    from audiodd_jax.active_learning import acquisition, coverage
    from audiodd_jax.distillation import registry

    assert set(names.REGRESSION + names.MATCHING + names.HEADS) == set(registry.METHODS)
    assert tuple(acquisition.SCORES) == (*names.SCORING, *names.COMMITTEE)
    assert tuple(coverage.COVERS) == names.COVERING
    functions = {*acquisition.SCORES, *names.DIVERSE, *coverage.COVERS}
    assert set(names.ACQUISITIONS) == functions
