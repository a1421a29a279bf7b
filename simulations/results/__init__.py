"""The run folder: all artefacts of a run, written crash-safely."""

from __future__ import annotations

from shoal.simulations.results.folder import RunFolder, list_folders
from shoal.simulations.results.sites import OverSites, monitored_metric, over_sites

__all__ = ["OverSites", "RunFolder", "list_folders", "monitored_metric", "over_sites"]
