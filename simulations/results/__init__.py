"""The run folder: what a run leaves behind, written so that nothing told is ever lost."""

from __future__ import annotations

from shoal.simulations.results.folder import RunFolder, list_folders
from shoal.simulations.results.sites import OverSites, monitored_metric, over_sites

__all__ = ["OverSites", "RunFolder", "list_folders", "monitored_metric", "over_sites"]
