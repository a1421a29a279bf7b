"""Computes epsilon again from a bundle's PRIVACY.json, without shoal: python recompute_epsilon.py FILE"""

import json
import sys
from pathlib import Path

import dp_accounting as dp

stated = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
# With samples of fixed size, neighbours differ in one member's data: one part leaves the sum, another enters.
replaced = any(event["sampling"] == "fixed" for event in stated["events"])
relation = dp.NeighboringRelation.REPLACE_ONE if replaced else dp.NeighboringRelation.ADD_OR_REMOVE_ONE
accountant = {"rdp": dp.rdp.RdpAccountant, "pld": dp.pld.PLDAccountant}[stated["accountant"]](
    neighboring_relation=relation
)
for event in stated["events"]:
    used = dp.GaussianDpEvent(event["noise_multiplier"] / (2 if replaced else 1))
    share, population = event["share"], event["population"]
    if share < 1 and event["sampling"] == "poisson":
        used = dp.PoissonSampledDpEvent(share, used)
    elif share < 1 and event["sampling"] == "fixed":
        used = dp.SampledWithoutReplacementDpEvent(population, round(share * population), used)
    accountant.compose(used, event["count"])
print(f"epsilon = {accountant.get_epsilon(stated['delta']):.6g}, stated {stated['epsilon']:.6g}")
