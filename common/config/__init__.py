"""The scenario: its typed sections, how it is read from a file, and how problems are reported."""

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
