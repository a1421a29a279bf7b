"""The table of attacks by name, with their arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from shoal.common import arguments, errors
from shoal.common.arguments import Argument
from shoal.common.config import AttackConfig
from shoal.common.schema import Schema
from shoal.simulations.attacks.attack import Attack
from shoal.simulations.attacks.colluding import Alie, MinMax
from shoal.simulations.attacks.forging import FreeRider, Gaussian, Scaling, SignFlip
from shoal.simulations.attacks.poisoning import Backdoor, LabelFlip

NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class AttackEntry:
    """An attack that a scenario can select.

    Attributes:
        kind: its class; summary: one line for the docs, with the paper.
        arguments: name → argument that a scenario can set; as in the signature of the class.
        classes: whether it needs classes, and so cannot attack a regression.
        note: remarks for the docs.
    """

    kind: type[Attack]
    summary: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    classes: bool = False
    note: str = ""


_COLLUDERS: Final = {"colluders": Argument(10, least=1)}
_CLASS: Final = Argument(-1, least=-1)
_COLLUDING_NOTE: Final = (
    "A single malicious client sends an honest update. colluders is the maximum number of malicious clients "
    "whose rows each attacker trains on."
)

ATTACKS: Final[Mapping[str, AttackEntry]] = {
    "label-flip": AttackEntry(
        LabelFlip,
        "Trains on wrong labels (Tolpegin et al., ESORICS 2020).",
        {"source": _CLASS, "target": _CLASS},
        note="-1 relabels every class k as C - 1 - k. In a regression, targets are mirrored.",
    ),
    "sign-flip": AttackEntry(
        SignFlip,
        "Sends the negated update (Li et al., AAAI 2019).",
        {"factor": Argument(1.0, positive=True)},
    ),
    "gaussian": AttackEntry(
        Gaussian,
        "Sends noise (Blanchard et al., NeurIPS 2017).",
        {"stddev": Argument(1.0, positive=True)},
    ),
    "scaling": AttackEntry(
        Scaling,
        "Model replacement: sends its update scaled up (Bagdasaryan et al., AISTATS 2020).",
        {"factor": Argument(None, positive=True)},
        note="factor defaults to the number of clients per round.",
    ),
    "backdoor": AttackEntry(
        Backdoor,
        "Trains the model to predict one class for any row with a trigger (Gu et al., 2017; Bagdasaryan et "
        "al., AISTATS 2020).",
        {
            "target": Argument(0),
            "share": Argument(0.5, positive=True, most=1.0),
            "factor": Argument(1.0, positive=True),
            "size": Argument(3, least=1),
            "value": Argument(3.0, least=-100.0),
        },
        classes=True,
        note="share is the fraction of training rows that get the trigger; factor scales the update. The "
        "trigger is a bright square of size × size pixels, the first size words, or the first size inputs "
        "set to value.",
    ),
    "free-rider": AttackEntry(
        FreeRider,
        "Sends the server's weights plus a little noise, without training (Fraboni et al., AISTATS 2021).",
        {"stddev": Argument(1e-3), "decay": Argument(1.0)},
        note="The standard deviation of the noise is stddev / round^decay.",
    ),
    "alie": AttackEntry(
        Alie,
        "A Little Is Enough: shifts the mean by as much as still looks normal (Baruch et al., NeurIPS 2019).",
        {"z": Argument(None), **_COLLUDERS},
        note="z is the shift in standard deviations; it defaults to the paper's z_max, which is 0 with few "
        "attackers. " + _COLLUDING_NOTE,
    ),
    "min-max": AttackEntry(
        MinMax,
        "Stays within the largest distance between two honest updates (Shejwalkar, Houmansadr, NDSS 2021).",
        _COLLUDERS,
        note=_COLLUDING_NOTE,
    ),
}


def check(attack: AttackConfig) -> list[str]:
    """Return one line for each problem with an attack's name and arguments."""
    if attack.kind == NONE:
        return (
            [f"attack.args: {', '.join(attack.args)} without an attack: set attack.kind"]
            if attack.args
            else []
        )
    entry = ATTACKS.get(attack.kind)
    if entry is None:
        return [f"attack.kind: {errors.unknown_name('attack', attack.kind, (NONE, *ATTACKS))}"]
    return list(arguments.problems("attack.args", attack.kind, attack.args, entry.arguments))


def check_schema(attack: AttackConfig, schema: Schema) -> list[str]:
    """Return one line for each conflict with the data, for an attack that passed `check`."""
    if attack.kind == NONE:
        return []
    if ATTACKS[attack.kind].classes and not schema.classes:
        return [f'attack.kind: "{attack.kind}" needs classes, but the task is regression']
    return [
        f"attack.args.{name} = {attack.args[name]}: expected a class from 0 to {schema.num_classes - 1}"
        for name in ("source", "target")
        if schema.classes and attack.args.get(name, -1) >= schema.num_classes
    ]
