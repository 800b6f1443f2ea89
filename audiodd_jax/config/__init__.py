"""Every setting, its default and its constraint; imports neither JAX nor NumPy."""

from audiodd_jax.config.clip_settings import (
    AugmentConfig,
    DataConfig,
    FeaturesConfig,
)
from audiodd_jax.config.distillation_settings import (
    CoresetConfig,
    EvaluationConfig,
    FRePoConfig,
    KIPConfig,
    LoopConfig,
    MatchingConfig,
    OptimizerConfig,
    RandomNetworkConfig,
    RFADConfig,
    SiameseConfig,
    TeacherConfig,
    ViewsConfig,
)
from audiodd_jax.config.schema import Config
from audiodd_jax.config.training_settings import (
    ActiveConfig,
    ModelConfig,
    TrainingConfig,
)

__all__ = [
    "ActiveConfig",
    "AugmentConfig",
    "Config",
    "CoresetConfig",
    "DataConfig",
    "EvaluationConfig",
    "FRePoConfig",
    "FeaturesConfig",
    "KIPConfig",
    "LoopConfig",
    "MatchingConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RFADConfig",
    "RandomNetworkConfig",
    "SiameseConfig",
    "TeacherConfig",
    "TrainingConfig",
    "ViewsConfig",
]
