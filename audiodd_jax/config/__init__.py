"""Every setting, its default and its constraint; imports neither JAX nor NumPy."""

from audiodd_jax.config.schema import (
    ActiveConfig,
    AugmentConfig,
    Config,
    CoresetConfig,
    DataConfig,
    EvaluationConfig,
    FeaturesConfig,
    KIPConfig,
    LoopConfig,
    MatchingConfig,
    ModelConfig,
    OptimizerConfig,
    RandomNetworkConfig,
    RFADConfig,
    SiameseConfig,
    TrainingConfig,
)

__all__ = [
    "ActiveConfig",
    "AugmentConfig",
    "Config",
    "CoresetConfig",
    "DataConfig",
    "EvaluationConfig",
    "FeaturesConfig",
    "KIPConfig",
    "LoopConfig",
    "MatchingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RFADConfig",
    "RandomNetworkConfig",
    "SiameseConfig",
    "TrainingConfig",
]
