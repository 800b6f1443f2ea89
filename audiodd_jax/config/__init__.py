"""Every setting, its default and its constraint; imports neither JAX nor NumPy."""

import dataclasses

from audiodd_jax.config import extensions
from audiodd_jax.config.distillation_settings import (
    CoresetConfig,
    EvaluationConfig,
    FRePoConfig,
    KIPConfig,
    LabelsConfig,
    LoopConfig,
    MatchingConfig,
    OptimizerConfig,
    RandomNetworkConfig,
    RFADConfig,
    SiameseConfig,
    TeacherConfig,
    ViewsConfig,
)
from audiodd_jax.config.names import METHODS, TRACKERS
from audiodd_jax.config.settings import (
    SEED,
    ActiveConfig,
    AugmentConfig,
    DataConfig,
    EncoderConfig,
    FeaturesConfig,
    ModelConfig,
    SessionConfig,
    TrainingConfig,
    installed_or,
    listed,
    setting,
)


@dataclasses.dataclass
class Config:
    """The whole configuration of a run; saved with it as ``config.json``.

    Attributes:
      tracker: comma-separated trackers of the run's metrics: ``tensorboard``,
        ``wandb``, ``mlflow``, ``clu``; empty: none. Not recorded with a run.
    """

    method: str = setting("rfad", installed_or(extensions.METHODS, *METHODS))
    seed: int = setting(0, SEED)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    features: FeaturesConfig = dataclasses.field(default_factory=FeaturesConfig)
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    network: RandomNetworkConfig = dataclasses.field(
        default_factory=RandomNetworkConfig
    )
    coreset: CoresetConfig = dataclasses.field(default_factory=CoresetConfig)
    rfad: RFADConfig = dataclasses.field(default_factory=RFADConfig)
    kip: KIPConfig = dataclasses.field(default_factory=KIPConfig)
    frepo: FRePoConfig = dataclasses.field(default_factory=FRePoConfig)
    matching: MatchingConfig = dataclasses.field(default_factory=MatchingConfig)
    siamese: SiameseConfig = dataclasses.field(default_factory=SiameseConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    teacher: TeacherConfig = dataclasses.field(default_factory=TeacherConfig)
    views: ViewsConfig = dataclasses.field(default_factory=ViewsConfig)
    labels: LabelsConfig = dataclasses.field(default_factory=LabelsConfig)
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    active: ActiveConfig = dataclasses.field(default_factory=ActiveConfig)
    session: SessionConfig = dataclasses.field(default_factory=SessionConfig)
    tracker: str = setting("tensorboard", listed(extensions.TRACKERS, *TRACKERS))

    @property
    def is_aligned(self) -> bool:
        """Returns whether RFAD's loss is of views that a teacher labels."""
        return self.method == "rfad" and self.rfad.views > 0
