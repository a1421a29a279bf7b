"""Differential privacy: sources of noise, and accounting of the budget (docs/privacy.md)."""
