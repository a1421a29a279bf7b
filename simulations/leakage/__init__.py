"""Attacks on a finished run, to measure what its model and updates reveal about the training rows.

One module per attack, with functions over arrays: `membership`, `lira`, `inversion`, `canary`. `audit` runs
them against a run folder, `target` opens it, `rerun` trains its scenario again. docs/leakage.md explains the
results.
"""
