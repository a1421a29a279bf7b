"""What `[privacy]` asks of a client's update, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from flwr.app import ConfigRecord
from numpy.typing import NDArray

from shoal.clients.runtime import ClientRuntime
from shoal.clients.update.clip import norms
from shoal.clients.update.pipeline import Pipeline, make_pipeline
from shoal.clients.update.step import Updates
from shoal.common.config import PrivacyConfig, UpdateConfig
from shoal.common.privacy.noise import SLACK
from shoal.common.records import CLIP_NORM


@dataclass(frozen=True, slots=True)
class UpdateProtection:
    """How one round's updates are protected.

    Attributes:
        pipeline: what is done to them.
        clip_norm: of unit "client"; `None` for others, which tell nothing beside their weights.
        privacy: the section of the scenario.
    """

    pipeline: Pipeline
    clip_norm: float | None
    privacy: PrivacyConfig

    def weight(self, rows: int) -> float:
        """Return how much an update counts in a mean; `rows`: that the client trained on."""
        if self.clip_norm is None:
            return float(rows)
        full = self.privacy.full_weight_rows
        return min(rows / full, 1.0) if self.privacy.weights == "bounded" else 1.0

    def within(self, start: Sequence[NDArray[Any]], trained: Updates) -> list[float] | list[None]:
        """Return 1/2 for each update within the clipping norm and -1/2 for others; `None` where not asked.

        Args:
            start: the server's weights; trained: the clients' own, each (clients, ...).
        """
        if self.clip_norm is None or self.privacy.clipping == "fixed":
            return [None] * len(trained[0])
        pairs = zip(trained, start, strict=True)
        moved = [w - w0 for w, w0 in pairs if np.issubdtype(w.dtype, np.floating)]
        return [0.5 if norm <= self.clip_norm else -0.5 for norm in norms(moved)]


def protect(runtime: ClientRuntime, config: ConfigRecord) -> UpdateProtection:
    """Return how the updates of one round are protected.

    The clipping norm of unit "client" may move from round to round, so the server tells it. The noise of
    unit "local" protects against the server, so nothing that the server tells can change it.

    Args:
        runtime: of the client's process; config: the server's.
    """
    scenario, source = runtime.scenario, runtime.source
    privacy, update = scenario.privacy, scenario.update
    if privacy.unit == "client":
        norm = float(cast("float", config.get(CLIP_NORM, privacy.clip_norm)))
        pipeline = make_pipeline(UpdateConfig(clip_norm=norm), source=source, as_updates=True)
        return UpdateProtection(pipeline, norm, privacy)
    if privacy.unit == "local":
        noise = 2 * runtime.client_plan.noise_multiplier * privacy.clip_norm * SLACK
        update = update.model_copy(update={"clip_norm": privacy.clip_norm, "noise_stddev": noise})
    return UpdateProtection(make_pipeline(update, source=source), None, privacy)
