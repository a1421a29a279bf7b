"""The hand-over of a run: a signed bundle of model, documents and tables (docs/handover.md)."""

from __future__ import annotations

from shoal.simulations.handover.bundle import write_bundle
from shoal.simulations.handover.checking import Checked, check_bundle

__all__ = ["Checked", "check_bundle", "write_bundle"]
