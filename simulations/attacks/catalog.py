"""The attacks by name."""

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
    """An attack that a scenario may name.

    Attributes:
        kind: its class; summary: one line for docs, with its paper.
        arguments: name → what a scenario may set, as in the signature of the class.
        classes: whether it needs classes, so that a regression has no such attack.
        note: what to know before using it.
    """

    kind: type[Attack]
    summary: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    classes: bool = False
    note: str = ""


_COLLUDERS: Final = {"colluders": Argument(10, least=1)}
_CLASS: Final = Argument(-1, least=-1)
_COLLUDING_NOTE: Final = (
    "With one malicious client it sends an honest update. colluders is how many malicious clients' rows each "
    "attacker trains on, at most."
)

ATTACKS: Final[Mapping[str, AttackEntry]] = {
    "label-flip": AttackEntry(
        LabelFlip,
        "Trains on wrong labels (Tolpegin et al., ESORICS 2020).",
        {"source": _CLASS, "target": _CLASS},
        note="-1: every class, and class C - 1 - k for k. A target of a regression is mirrored.",
    ),
    "sign-flip": AttackEntry(
        SignFlip,
        "Sends its update turned round (Li et al., AAAI 2019).",
        {"factor": Argument(1.0, positive=True)},
    ),
    "gaussian": AttackEntry(
        Gaussian,
        "Sends noise (Blanchard et al., NeurIPS 2017).",
        {"stddev": Argument(1.0, positive=True)},
    ),
    "scaling": AttackEntry(
        Scaling,
        "Model replacement: sends its update many times over (Bagdasaryan et al., AISTATS 2020).",
        {"factor": Argument(None, positive=True)},
        note="factor is the number of clients in a round unless it is set.",
    ),
    "backdoor": AttackEntry(
        Backdoor,
        "Teaches one class wherever a trigger is (Gu et al., 2017; Bagdasaryan et al., AISTATS 2020).",
        {
            "target": Argument(0),
            "share": Argument(0.5, positive=True, most=1.0),
            "factor": Argument(1.0, positive=True),
            "size": Argument(3, least=1),
            "value": Argument(3.0, least=-100.0),
        },
        classes=True,
        note="share of the training rows bears the trigger; factor scales the update. The trigger is a "
        "bright square of size pixels, the first size words, or the first size inputs at value.",
    ),
    "free-rider": AttackEntry(
        FreeRider,
        "Sends the server's weights with little noise (Fraboni et al., AISTATS 2021).",
        {"stddev": Argument(1e-3), "decay": Argument(1.0)},
        note="The noise is stddev / round^decay.",
    ),
    "alie": AttackEntry(
        Alie,
        "A little is enough: as far from the mean as looks usual (Baruch et al., NeurIPS 2019).",
        {"z": Argument(None), **_COLLUDERS},
        note="z standard deviations; the paper's z_max unless it is set, which is 0 with few attackers. "
        + _COLLUDING_NOTE,
    ),
    "min-max": AttackEntry(
        MinMax,
        "No further from any honest update than two of them are apart (Shejwalkar, Houmansadr, NDSS 2021).",
        _COLLUDERS,
        note=_COLLUDING_NOTE,
    ),
}


def check(attack: AttackConfig) -> list[str]:
    """Return what is wrong with an attack's name and arguments, one line each."""
    if attack.kind == NONE:
        return [f"attack.args: there is no attack to give {', '.join(attack.args)} to"] if attack.args else []
    entry = ATTACKS.get(attack.kind)
    if entry is None:
        return [f"attack.kind: {errors.unknown_name('attack', attack.kind, (NONE, *ATTACKS))}"]
    return list(arguments.problems("attack.args", attack.kind, attack.args, entry.arguments))


def check_schema(attack: AttackConfig, schema: Schema) -> list[str]:
    """Return what does not fit the data, for an attack that `check` has nothing against."""
    if attack.kind == NONE:
        return []
    if ATTACKS[attack.kind].classes and not schema.classes:
        return [f'attack.kind: "{attack.kind}" needs classes, but the task is a regression']
    return [
        f"attack.args.{name} = {attack.args[name]}: there are the classes 0 to {schema.num_classes - 1}"
        for name in ("source", "target")
        if schema.classes and attack.args.get(name, -1) >= schema.num_classes
    ]
