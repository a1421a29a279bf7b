"""Preprocessing that is fitted federatedly: statistics, the fitted specification, the encoder."""

from __future__ import annotations

from common.preprocessing.encoder import Encoder
from common.preprocessing.spec import PreprocessingSpec
from common.preprocessing.statistics import Statistics

__all__ = ["Encoder", "PreprocessingSpec", "Statistics"]
