"""Removes the masks from the sum of masked inputs."""

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
class Participants:
    """The stages that the clients of a session completed.

    Attributes:
        id: of the session.
        asked: digest of the request for masked inputs, on which masks depend.
        threshold: number of shares that reconstruct a secret.
        neighbours: client → its neighbours in the graph; mask_keys: client → public key.
        members: clients that sent shares; survivors: those that sent a masked input. All ascending.
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
        """Clients that sent shares but no input: their neighbours' inputs hold masks that nothing cancels."""
        return sorted(set(self.members) - set(self.survivors))

    def around(self, client: int, clients: Sequence[int]) -> list[int]:
        """Return which of the given clients are a client's neighbours, or the client itself."""
        near = {*self.neighbours[client], client}
        return [v for v in clients if v in near]


@dataclass(frozen=True, slots=True)
class RevealedShares:
    """Shares revealed by survivors: of the seeds of survivors, and of the mask keys of dropped clients."""

    seeds: Shares = field(default_factory=dict)
    keys: Shares = field(default_factory=dict)


def unmasked(participants: Participants, inputs: Mapping[int, Ring], revealed: RevealedShares) -> Ring:
    """Return the sum of the inputs without their masks.

    Args:
        participants: of the session; inputs: client → masked input, of all survivors.
        revealed: shares that the survivors sent.

    Raises:
        TooFewRepliesError: too few shares of a required secret, or wrong ones.
    """
    total = np.zeros_like(next(iter(inputs.values())))
    for client in participants.survivors:
        np.add(total, inputs[client], out=total)
    add_masks(
        total,
        (
            Mask(_secret(participants, revealed.seeds, u, "seed"), subtract=True)
            for u in participants.survivors
        ),
    )
    for dropped in participants.dropped:
        add_masks(total, _unmatched_masks(participants, dropped, revealed))
    return total


def _unmatched_masks(participants: Participants, dropped: int, revealed: RevealedShares) -> list[Mask]:
    """Return the masks between survivors and a dropped client, negated so that adding them cancels."""
    near = [u for u in participants.around(dropped, participants.survivors) if u != dropped]
    if not near:
        return []
    own = KeyPair.of(_secret(participants, revealed.keys, dropped, "mask key"))
    if own.public != participants.mask_keys[dropped]:
        raise TooFewRepliesError(
            f"the shares of the mask key of client {dropped} give a different key: at least one is wrong"
        )
    # A survivor added the mask if its neighbour's index is the larger one, and subtracted it otherwise.
    return [
        Mask(
            mask_key(own, participants.mask_keys[u], participants.id, participants.asked),
            subtract=dropped > u,
        )
        for u in near
    ]


def _secret(participants: Participants, shares: Shares, client: int, what: str) -> bytes:
    found = shares.get(client, {})
    if len(found) < participants.threshold:
        raise TooFewRepliesError(
            f"{len(found)} shares of the {what} of client {client} were received; "
            f"{participants.threshold} are needed",
            hint="raise secure.max_dropout if this many clients are lost in a round",
        )
    points = sorted(found)[: participants.threshold]
    secret = int_to_secret(combine({x: found[x] for x in points}))
    if secret is None:
        raise TooFewRepliesError(
            f"the shares of the {what} of client {client} are inconsistent: at least one is wrong"
        )
    return secret
