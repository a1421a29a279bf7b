"""The stages of a session of secure aggregation, as a client answers them.

A client gives at most one masked input in a session, and reveals for each other client either its share of
the seed or its share of the mask key, once. All secrets come from the operating system, live in the client's
from one stage to the next, and are gone after the last.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from shoal.clients.runtime import ClientRuntime
from shoal.clients.secure.session import Session, without_session
from shoal.clients.secure.training import summand
from shoal.clients.secure.vectors import VectorFunction, statistics
from shoal.common.arrays import NumpyArray
from shoal.common.errors import DisclosureError
from shoal.common.messages.names import KEYS, MASKED, METRICS_RECORD, SHARES, UNMASK
from shoal.common.messages.replies import metric_record
from shoal.common.messages.requests import (
    MaskedInput,
    SecureKeysRequest,
    SecureSharesRequest,
    SecureTrainRequest,
    SecureUnmaskRequest,
    SecureVectorRequest,
)
from shoal.common.messages.schema import to_content
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.privacy.noise import randomness
from shoal.common.profiling import span
from shoal.common.secure import field, graph, layout
from shoal.common.secure.agreement import Channel, KeyPair, channel_keys, mask_key
from shoal.common.secure.digest import digest
from shoal.common.secure.encoding import WHOLE_NUMBERS, training_encoding
from shoal.common.secure.fixed_point import to_ring
from shoal.common.secure.masks import Mask, add_masks
from shoal.common.secure.noise import noise_share
from shoal.common.weights import record_to_weights

State = RecordDict  # a client's `Context.state`, which is never changed in place


class SecureClient:
    """Answers for any client of the process."""

    def __init__(
        self,
        runtime: ClientRuntime,
        *,
        vector: VectorFunction = statistics,
    ) -> None:
        """Set up the handlers.

        Args:
            runtime: data and model of this process; vector: function of the vector to add up.
        """
        self._runtime = runtime
        self._vector = vector

    def keys(self, client: int, request: SecureKeysRequest, state: State) -> tuple[RecordDict, State]:
        """Begin a session, replacing any other, with two new key pairs; return the public keys."""
        if not self._runtime.scenario.secure.aggregation:
            raise DisclosureError("secure.aggregation is false at this client")
        mask, share = KeyPair.new(), KeyPair.new()
        session = Session(request.session, "keys", mask.private, share.private)
        reply = _reply({KEYS: ConfigRecord({"mask": mask.public, "share": share.public})})
        return reply, session.saved_in(state)

    def shares(self, client: int, request: SecureSharesRequest, state: State) -> tuple[RecordDict, State]:
        """Draw a seed, and seal a share of it and of the mask key for each neighbour."""
        session = Session.load(state, request.session, "keys")
        neighbours, threshold = request.neighbours, request.threshold
        self._check_cohort(client, request.clients, threshold, neighbours)
        own = KeyPair.of(session.share_key)
        _check_keys(
            [*request.mask_keys, *request.share_keys, own.public, KeyPair.of(session.mask_key).public],
            len(neighbours),
        )
        seed, points = os.urandom(field.SECRET_BYTES), [_point(v) for v in (*neighbours, client)]
        seeds, keys = (
            [field.share_to_bytes(y) for y in field.split(field.secret_to_int(secret), threshold, points)]
            for secret in (seed, session.mask_key)
        )
        channels = [channel_keys(own, public, session.id) for public in request.share_keys]
        sealed = [
            Channel(to, client, v).seal(seeds[k] + keys[k])
            for k, (v, (to, _)) in enumerate(zip(neighbours, channels, strict=True))
        ]
        after = session.after(
            "shares",
            clients=request.clients,
            threshold=threshold,
            neighbours=neighbours,
            their_mask_keys=request.mask_keys,
            open_keys=tuple(key for _, key in channels),
            share_key=b"",
            seed=seed,
            own_share=seeds[-1],
        )
        reply = _reply({SHARES: ConfigRecord({"for": list(neighbours), "sealed": sealed})})
        return reply, after.saved_in(state)

    def train(self, client: int, request: SecureTrainRequest, state: State) -> tuple[RecordDict, State]:
        """Train for a round; return the update under masks, with the client's share of the noise."""
        session, runtime = Session.load(state, request.session, "shares"), self._runtime
        mine = self._members(client, session, request)
        plan = runtime.client_plan if mechanism_of(runtime.scenario.privacy).server_noise else None
        sites, norm = len(runtime.population), request.clip_norm
        encoding = training_encoding(runtime.scenario, plan, sites, session.clients, norm)
        own = summand(runtime, request, client, encoding.fixed)
        whole = layout.encode(own, encoding.fixed)
        weights = record_to_weights(request.weights)
        shares = layout.noise_shares(encoding.noise, encoding.least, weights, encoding.fixed)
        self._add_noise(client, whole, shares, request.secure_round)
        return self._masked(client, whole, mine, session, request, state)

    def vector(self, client: int, request: SecureVectorRequest, state: State) -> tuple[RecordDict, State]:
        """Return a vector of statistics, with the client's share of the noise, under masks."""
        session = Session.load(state, request.session, "shares")
        mine = self._members(client, session, request)
        values = self._vector(self._runtime, client, request, session.clients)
        return self._masked(client, WHOLE_NUMBERS.encode(values), mine, session, request, state)

    def unmask(self, client: int, request: SecureUnmaskRequest, state: State) -> tuple[RecordDict, State]:
        """Return the shares that unmask the sum: of the survivors' seeds, and of the others' mask keys."""
        session = Session.load(state, request.session, "input")
        stayed, dropped = set(request.survivors), set(request.dropped)
        _check_survivors(client, session, stayed, dropped)
        seeds, keys = {client: session.own_share}, dict[int, bytes]()
        opens = dict(zip(session.neighbours, session.open_keys, strict=True))
        for sender, text in zip(request.senders, request.sealed, strict=True):
            if sender not in session.members:
                raise DisclosureError(
                    "the server forwarded shares of a client that is not a neighbour in this session"
                )
            shares = Channel(opens[sender], sender, client).open(text)
            if shares is None or len(shares) != 2 * field.SHARE_BYTES:
                continue  # its other neighbours have shares too
            if sender in stayed:
                seeds[sender] = shares[: field.SHARE_BYTES]
            else:
                keys[sender] = shares[field.SHARE_BYTES :]
        return _reply({UNMASK: _shares_record(seeds, keys)}), without_session(state)

    def _check_cohort(self, client: int, clients: int, threshold: int, neighbours: Sequence[int]) -> None:
        """Refuse a graph that allows fewer clients to collude than this client's own scenario requires."""
        config, sites = self._runtime.scenario.secure, len(self._runtime.population)
        if clients > sites:  # each would add a smaller share of the noise
            raise DisclosureError(f"a session of {clients} clients, in a federation of {sites}")
        wanted = graph.choose(clients, config.max_dropout, config.max_colluding)
        distinct = len({*neighbours, client}) == len(neighbours) + 1
        if (threshold, len(neighbours)) != (wanted.threshold, wanted.neighbours) or not distinct:
            raise DisclosureError(
                f"{len(neighbours)} neighbours and a threshold of {threshold} among {clients} clients; "
                f"this client's scenario requires {wanted.neighbours} and {wanted.threshold}"
            )

    def _members(self, client: int, session: Session, request: MaskedInput) -> list[int]:
        """Return the neighbours that this client masks its input against, before it computes any."""
        members = set(request.members)
        mine = [v for v in session.neighbours if v in members]
        if client not in members or len(mine) + 1 < session.threshold:
            raise DisclosureError(
                f"{len(mine)} of {len(session.neighbours)} neighbours sent shares, which with this "
                f"client's own are fewer than the threshold of {session.threshold}"
            )
        return mine

    @span("reduce")
    def _masked(
        self,
        client: int,
        whole: NDArray[np.int64],
        members: Sequence[int],
        session: Session,
        request: MaskedInput,
        state: State,
    ) -> tuple[RecordDict, State]:
        """Return whole numbers under this client's masks; `members`: its neighbours in the sum."""
        vector, own = to_ring(whole), KeyPair.of(session.mask_key)
        public = dict(zip(session.neighbours, session.their_mask_keys, strict=True))
        same = digest(to_content(request))
        pairwise = (Mask(mask_key(own, public[v], session.id, same), v < client) for v in members)
        add_masks(vector, [Mask(session.seed), *pairwise])
        after = session.after("input", members=tuple(members))
        return _reply({MASKED: ArrayRecord({"0": NumpyArray(vector)})}), after.saved_in(state)

    def _add_noise(
        self, client: int, whole: NDArray[np.int64], shares: Sequence[tuple[int, float]], number: int
    ) -> None:
        """Add this client's share of the noise to whole numbers, in place.

        Args:
            shares: runs of numbers, each with the standard deviation of the share, in levels.
            number: of the round; keys the draws in a simulation.
        """
        runtime, start = self._runtime, 0
        seed = runtime.scenario.seed
        draws = randomness(runtime.source, seed, "secure-noise", dispatch=number, client=client)
        for size, stddev in shares:
            if stddev > 0:
                whole[start : start + size] += noise_share(draws, stddev, size)
            start += size


def _reply(said: Mapping[str, ArrayRecord | ConfigRecord]) -> RecordDict:
    return RecordDict({METRICS_RECORD: metric_record({}), **said})


def _shares_record(seeds: Mapping[int, bytes], keys: Mapping[int, bytes]) -> ConfigRecord:
    record = ConfigRecord({"seeds-of": list(seeds), "seeds": list(seeds.values())})
    record["keys-of"], record["keys"] = list(keys), list(keys.values())
    return record


def _point(client: int) -> int:
    return client + 1  # a share at 0 would be the secret


def _check_keys(public: Sequence[bytes], neighbours: int) -> None:
    """Refuse keys that stand for several clients at once, the cheapest way to fake a large cohort."""
    if len(public) != 2 * neighbours + 2 or len(set(public)) < len(public):
        raise DisclosureError("the server forwarded the same public key for several clients, or too few keys")


def _check_survivors(client: int, session: Session, stayed: set[int], dropped: set[int]) -> None:
    """Refuse a request that would reveal both secrets of a client, or an input among too few.

    Raises:
        DisclosureError: with the reason.
    """
    if stayed & dropped:
        raise DisclosureError("the server asks for both secrets of a client, which would reveal its input")
    if client not in stayed or stayed | dropped != {*session.members, client}:
        raise DisclosureError(
            "the server's survivors are not the clients that this client masked its input against"
        )
    if len(stayed) < session.threshold:
        raise DisclosureError(f"{len(stayed)} survivors; the threshold is {session.threshold}")
