"""The scenario: its typed sections, how a file becomes one, and how problems name their place."""

from __future__ import annotations

from shoal.common.config.sections import (
    HIGHER_IS_BETTER,
    METRICS,
    OPTIMIZERS,
    Arguments,
    AttackConfig,
    DataConfig,
    EarlyStoppingConfig,
    ModelConfig,
    OutputConfig,
    PartitionConfig,
    PreprocessingConfig,
    PrivacyConfig,
    ResourcesConfig,
    Scenario,
    Section,
    SecureConfig,
    ServerConfig,
    StrategyConfig,
    TrainingConfig,
    UpdateConfig,
)

__all__ = [
    "HIGHER_IS_BETTER",
    "METRICS",
    "OPTIMIZERS",
    "Arguments",
    "AttackConfig",
    "DataConfig",
    "EarlyStoppingConfig",
    "ModelConfig",
    "OutputConfig",
    "PartitionConfig",
    "PreprocessingConfig",
    "PrivacyConfig",
    "ResourcesConfig",
    "Scenario",
    "Section",
    "SecureConfig",
    "ServerConfig",
    "StrategyConfig",
    "TrainingConfig",
    "UpdateConfig",
]
