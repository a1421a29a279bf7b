"""Two strategies on the same sites, at two seeds each, on workers that are started once.

Run it as it is: python examples/strategies.py. Call it again and it reads what is there.
"""

import shoal

cells = {
    "fedavg": {"strategy": "FedAvg"},
    "fedprox": {"strategy": {"name": "FedProx", "args": {"proximal_mu": 0.1}}},
}

# backend="serial" trains the clients in this process: quickest for a model this small.
with shoal.Engine(backend="serial") as engine:
    found = shoal.sweep("medical-thyroid", cells, seeds=[1, 2], rounds=4, compare=False, engine=engine)

print(found.table().round(3))
for (cell, seed), reason in found.failed.items():
    print(cell, seed, reason)

plain, proximal = found.runs["fedavg", 1], found.runs["fedprox", 1]
print(plain.compare(proximal).round(3))
print(plain.differences(proximal))
