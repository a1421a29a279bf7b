"""Federated preprocessing: statistics, the fitted specification, the encoder."""

from __future__ import annotations

from shoal.common.preprocessing.encoder import Encoder
from shoal.common.preprocessing.spec import PreprocessingSpec
from shoal.common.preprocessing.statistics import Statistics

__all__ = ["Encoder", "PreprocessingSpec", "Statistics"]
