"""A callback that watches the weakest site of every round, and stops when it is good enough.

Run it as it is: python examples/watch_a_run.py.
"""

import shoal


class WeakestSite(shoal.Callback):
    """Adds the lowest validation AUC of any site to each round, and stops the run at a goal."""

    def __init__(self, goal):
        """Take the AUC that every site should reach."""
        self.goal = goal

    def on_start(self, scenario, folder):
        """Say where the results will be."""
        print(f"{scenario.name}: up to {scenario.training.rounds} rounds, in {folder}")

    def on_round(self, row, clients):
        """Return a metric more, which lands in the run folder and the report."""
        values = [c.metrics["auc"] for c in clients if c.phase == "evaluate" and "auc" in c.metrics]
        weakest = min(values)
        if weakest >= self.goal:
            self.stop()  # as if patience had run out: the final test and the models follow
        return {"weakest_auc": weakest}

    def on_end(self, status, folder):
        """Say how it ended."""
        print("it has", status)


run = shoal.run(
    "medical-thyroid",
    rounds=20,
    compare=False,
    backend="serial",
    callbacks=[WeakestSite(goal=0.85)],
    progress=False,
)
print(run.rounds[["round", "metric_auc", "metric_weakest_auc"]].round(3))
print(run)
