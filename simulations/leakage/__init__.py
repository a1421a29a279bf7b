"""Attacks on a finished run, to measure what its model and its updates tell of the rows behind them.

One module an attack, of functions over arrays: `membership`, `lira`, `inversion`, `canary`. `audit` leads
them against a run folder, `target` opens it, `rerun` trains its scenario again. docs/leakage.md says how to
read what they find.
"""
