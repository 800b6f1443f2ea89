"""The command ``audiodd doctor``."""

from collections.abc import Sequence

from audiodd_jax.commands.common import cache_dir, table
from audiodd_jax.flags import parse


def doctor(argv: Sequence[str]) -> None:
    """Shows devices, versions, datasets, free space, and what to do about the rest."""
    values, config, _ = parse.parse("doctor", argv, parse.dataset_config)
    from audiodd_jax.commands import doctor as doctor_lib

    table(doctor_lib.examine(config.data, cache_dir(values)))
