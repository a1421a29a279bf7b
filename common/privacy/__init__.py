"""Differential privacy: where noise comes from, and what a run has spent (docs/privacy.md)."""
