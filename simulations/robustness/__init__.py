"""Attacks against defences: a grid of runs, what each attack achieved, and a page about it."""
