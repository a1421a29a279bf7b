"""Takes the masks off the sum of masked inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from shoal.common.errors import TooFewRepliesError
from shoal.common.secure.agreement import KeyPair, mask_key
from shoal.common.secure.field import combine, int_to_secret
from shoal.common.secure.masks import Mask, Ring, add_masks

Shares = dict[int, dict[int, int]]  # whose secret → point → share


@dataclass(frozen=True, slots=True)
class Roll:
    """Who took part how far in a session.

    Attributes:
        id: of the session; asked: digest of what members were asked, on which their masks depend.
        threshold: shares that give a secret back.
        neighbours: client → its neighbours in the graph; mask_keys: client → public key.
        members: who gave shares; survivors: who gave a masked input. All ascending.
    """

    id: bytes
    asked: bytes
    threshold: int
    neighbours: Mapping[int, Sequence[int]]
    mask_keys: Mapping[int, bytes]
    members: Sequence[int]
    survivors: Sequence[int]

    @property
    def dropped(self) -> list[int]:
        """Who gave shares but no input: its neighbours' inputs have masks that nothing cancels."""
        return sorted(set(self.members) - set(self.survivors))

    def around(self, client: int, clients: Sequence[int]) -> list[int]:
        """Return those of some clients that are a client's neighbours, or itself."""
        near = {*self.neighbours[client], client}
        return [v for v in clients if v in near]


@dataclass(frozen=True, slots=True)
class Told:
    """Shares that survivors have told: of seeds of survivors, and of mask keys of the dropped."""

    seeds: Shares = field(default_factory=dict)
    keys: Shares = field(default_factory=dict)


def unmasked(roll: Roll, inputs: Mapping[int, Ring], told: Told) -> Ring:
    """Return the sum of the inputs without their masks.

    Args:
        roll: of the session; inputs: client → masked input, of all survivors; told: by survivors.

    Raises:
        TooFewRepliesError: a secret that is needed has too few shares, or wrong ones.
    """
    total = np.zeros_like(next(iter(inputs.values())))
    for client in roll.survivors:
        np.add(total, inputs[client], out=total)
    add_masks(total, (Mask(_secret(roll, told.seeds, u, "seed"), subtract=True) for u in roll.survivors))
    for dropped in roll.dropped:
        add_masks(total, _left_over(roll, dropped, told))
    return total


def _left_over(roll: Roll, dropped: int, told: Told) -> list[Mask]:
    """Return what takes away the masks that survivors have put between themselves and a dropped client."""
    near = [u for u in roll.around(dropped, roll.survivors) if u != dropped]
    if not near:
        return []
    own = KeyPair.of(_secret(roll, told.keys, dropped, "mask key"))
    if own.public != roll.mask_keys[dropped]:
        raise TooFewRepliesError(
            f"the shares of the mask key of client {dropped} give another key: one is wrong"
        )
    # A survivor has added the mask where its neighbour's index is the larger one, and else subtracted it.
    return [Mask(mask_key(own, roll.mask_keys[u], roll.id, roll.asked), subtract=dropped > u) for u in near]


def _secret(roll: Roll, shares: Shares, client: int, what: str) -> bytes:
    found = shares.get(client, {})
    if len(found) < roll.threshold:
        raise TooFewRepliesError(
            f"{len(found)} shares of the {what} of client {client} have come back, and {roll.threshold} are "
            "needed",
            hint="raise secure.max_dropout if so many clients are lost in a round",
        )
    points = sorted(found)[: roll.threshold]
    secret = int_to_secret(combine({x: found[x] for x in points}))
    if secret is None:
        raise TooFewRepliesError(
            f"the shares of the {what} of client {client} do not fit together: one is wrong"
        )
    return secret
