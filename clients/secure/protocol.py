"""The stages of a session of secure aggregation, as a client answers them.

A client gives at most one masked input in a session, and of each other client either its share of the seed
or its share of the mask key, once. All secrets come from the operating system, live in the client's state
from one stage to the next, and are gone after the last.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import cast
from zlib import crc32

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from shoal.clients.runtime import ClientRuntime
from shoal.clients.secure.session import Session, forget
from shoal.clients.secure.training import summand
from shoal.clients.secure.vectors import VECTORS, VectorFunction
from shoal.common.arrays import NumpyArray
from shoal.common.errors import DisclosureError, unknown_name
from shoal.common.privacy.noise import randomness
from shoal.common.profiling import span
from shoal.common.records import (
    ARRAYS,
    CONFIG,
    KEYS,
    MASKED,
    METRICS_RECORD,
    SECURE,
    SHARES,
    UNMASK,
    metric_record,
    record_to_weights,
)
from shoal.common.secure import field, graph, layout
from shoal.common.secure.agreement import Channel, KeyPair, channel_keys, mask_key
from shoal.common.secure.digest import digest
from shoal.common.secure.fixed_point import FixedPoint, to_ring
from shoal.common.secure.layout import SumNoise
from shoal.common.secure.masks import Mask, add_masks
from shoal.common.secure.noise import noise_share


class SecureClient:
    """Answers for whichever client of the process is asked."""

    def __init__(
        self,
        runtime: ClientRuntime,
        *,
        vectors: Mapping[str, VectorFunction] = VECTORS,
    ) -> None:
        """Prepare to answer.

        Args:
            runtime: data and model of this process; vectors: purpose → what may be added up.
        """
        self._runtime = runtime
        self._vectors = vectors

    def keys(self, client: int, content: RecordDict, state: RecordDict) -> RecordDict:
        """Begin a session, in place of any other, with two new key pairs; the public keys leave."""
        config = self._runtime.scenario.secure
        if not config.aggregation:
            raise DisclosureError("secure.aggregation is false at this client")
        mask, share = KeyPair.new(), KeyPair.new()
        session = Session(cast(bytes, _asked(content)["session"]), "keys", mask.private, share.private)
        session.save(state)
        return _reply({KEYS: ConfigRecord({"mask": mask.public, "share": share.public})})

    def shares(self, client: int, content: RecordDict, state: RecordDict) -> RecordDict:
        """Draw a seed, and seal a share of it and of the mask key for each neighbour."""
        asked = _asked(content)
        session = Session.load(state, asked, "keys")
        neighbours = tuple(cast("list[int]", asked["neighbours"]))
        theirs = [tuple(cast("list[bytes]", asked[f"{name}-keys"])) for name in ("mask", "share")]
        clients, threshold = cast(int, asked["clients"]), cast(int, asked["threshold"])
        self._check_cohort(client, clients, threshold, neighbours)
        own = KeyPair.of(session.share_key)
        _check_keys(
            [*theirs[0], *theirs[1], own.public, KeyPair.of(session.mask_key).public], len(neighbours)
        )
        seed, points = os.urandom(field.SECRET_BYTES), [_point(v) for v in (*neighbours, client)]
        seeds, keys = (
            [field.share_to_bytes(y) for y in field.split(field.secret_to_int(secret), threshold, points)]
            for secret in (seed, session.mask_key)
        )
        channels = [channel_keys(own, public, session.id) for public in theirs[1]]
        sealed = [
            Channel(to, client, v).seal(seeds[k] + keys[k])
            for k, (v, (to, _)) in enumerate(zip(neighbours, channels, strict=True))
        ]
        session.after(
            "shares",
            clients=clients,
            threshold=threshold,
            neighbours=neighbours,
            their_mask_keys=theirs[0],
            open_keys=tuple(key for _, key in channels),
            share_key=b"",
            seed=seed,
            own_share=seeds[-1],
        ).save(state)
        return _reply({SHARES: ConfigRecord({"for": list(neighbours), "sealed": sealed})})

    def train(self, client: int, content: RecordDict, state: RecordDict) -> RecordDict:
        """Train for a round; the update leaves under masks, with the client's share of the noise."""
        asked, arrays = _asked(content), content.array_records[ARRAYS]
        session = Session.load(state, asked, "shares")
        config = content.config_records[CONFIG]
        fixed, noise = _fixed(asked), SumNoise(*_stddevs(asked, 2))
        own = summand(self._runtime, config, arrays, client, fixed, noise)
        runs = layout.noise_stddevs(noise, record_to_weights(arrays), fixed)
        return self._masked(client, layout.encode(own, fixed), runs, session, content, state)

    def vector(self, client: int, content: RecordDict, state: RecordDict) -> RecordDict:
        """Give a vector of `VECTORS`, under masks and with the client's share of the noise."""
        asked = _asked(content)
        session, purpose = Session.load(state, asked, "shares"), str(asked["purpose"])
        if purpose not in self._vectors:
            raise DisclosureError(unknown_name("vector to be added up", purpose, self._vectors))
        values = self._vectors[purpose](self._runtime, client, content.config_records[CONFIG])
        fixed, (stddev,) = _fixed(asked), _stddevs(asked, 1)
        runs = [(len(values), stddev / fixed.step)]
        return self._masked(client, fixed.encode(values), runs, session, content, state)

    def unmask(self, client: int, content: RecordDict, state: RecordDict) -> RecordDict:
        """Give what takes the masks off the sum: shares of the survivors' seeds, of the others' mask keys."""
        asked = _asked(content)
        session = Session.load(state, asked, "input")
        stayed, dropped = (set(cast("list[int]", asked[name])) for name in ("survivors", "dropped"))
        _check_survivors(client, session, stayed, dropped)
        seeds, keys = {client: session.own_share}, dict[int, bytes]()
        opens = dict(zip(session.neighbours, session.open_keys, strict=True))
        senders, sealed = cast("list[int]", asked["senders"]), cast("list[bytes]", asked["sealed"])
        for sender, text in zip(senders, sealed, strict=True):
            if sender not in session.members:
                raise DisclosureError(
                    "the server passes on shares of a client that is no neighbour in this session"
                )
            shares = Channel(opens[sender], sender, client).open(text)
            if shares is None or len(shares) != 2 * field.SHARE_BYTES:
                continue  # its other neighbours have shares too
            if sender in stayed:
                seeds[sender] = shares[: field.SHARE_BYTES]
            else:
                keys[sender] = shares[field.SHARE_BYTES :]
        forget(state)
        return _reply({UNMASK: _shares_record(seeds, keys)})

    def _check_cohort(self, client: int, clients: int, threshold: int, neighbours: Sequence[int]) -> None:
        """Refuse a graph with which fewer could collude than this client's own scenario says."""
        config = self._runtime.scenario.secure
        wanted = graph.choose(clients, config.max_dropout, config.max_colluding)
        distinct = len({*neighbours, client}) == len(neighbours) + 1
        if (threshold, len(neighbours)) != (wanted.threshold, wanted.neighbours) or not distinct:
            raise DisclosureError(
                f"{len(neighbours)} neighbours and a threshold of {threshold} among {clients} clients; by "
                f"this client's scenario they are {wanted.neighbours} others and {wanted.threshold}"
            )

    @span("reduce")
    def _masked(
        self,
        client: int,
        whole: NDArray[np.int64],
        noise: Sequence[tuple[int, float]],
        session: Session,
        content: RecordDict,
        state: RecordDict,
    ) -> RecordDict:
        """Return whole numbers with this client's share of noise, under its masks."""
        asked = _asked(content)
        members = set(cast("list[int]", asked["members"]))
        mine = [v for v in session.neighbours if v in members]
        if client not in members or len(mine) + 1 < session.threshold:
            raise DisclosureError(
                f"{len(mine)} of {len(session.neighbours)} neighbours have given shares, which with this "
                f"client's are fewer than the threshold of {session.threshold}"
            )
        self._add_noise(client, whole, noise, session, asked)
        vector, own = to_ring(whole), KeyPair.of(session.mask_key)
        public = dict(zip(session.neighbours, session.their_mask_keys, strict=True))
        same = digest(content)
        pairwise = (Mask(mask_key(own, public[v], session.id, same), v < client) for v in mine)
        add_masks(vector, [Mask(session.seed), *pairwise])
        session.after("input", members=tuple(mine)).save(state)
        return _reply({MASKED: ArrayRecord({"0": NumpyArray(vector)})})

    def _add_noise(
        self,
        client: int,
        whole: NDArray[np.int64],
        noise: Sequence[tuple[int, float]],
        session: Session,
        asked: ConfigRecord,
    ) -> None:
        """Add this client's share to whole numbers, in place.

        Args:
            noise: runs of numbers, each with the standard deviation, in levels, that their sum shall have
                once only as many clients are left as have to be.
        """
        config = self._runtime.scenario
        least = graph.choose(session.clients, config.secure.max_dropout, config.secure.max_colluding).least
        # Sums of other purposes in the same round get noise of their own.
        apart = crc32(str(asked.get("purpose", "train")).encode()) << 32
        number, start = apart + cast(int, asked["round"]), 0
        draws = randomness(self._runtime.source, config.seed, "secure-noise", round=number, client=client)
        for size, stddev in noise:
            if stddev > 0:
                whole[start : start + size] += noise_share(draws, stddev / math.sqrt(least), size)
            start += size


def _asked(content: RecordDict) -> ConfigRecord:
    return content.config_records[SECURE]


def _reply(said: Mapping[str, ArrayRecord | ConfigRecord]) -> RecordDict:
    return RecordDict({METRICS_RECORD: metric_record({}), **said})


def _shares_record(seeds: Mapping[int, bytes], keys: Mapping[int, bytes]) -> ConfigRecord:
    record = ConfigRecord({"seeds-of": list(seeds), "seeds": list(seeds.values())})
    record["keys-of"], record["keys"] = list(keys), list(keys.values())
    return record


def _point(client: int) -> int:
    return client + 1  # a share at 0 would be the secret


def _fixed(asked: ConfigRecord) -> FixedPoint:
    return FixedPoint(float(cast(float, asked["range"])), cast(int, asked["levels"]))


def _stddevs(asked: ConfigRecord, count: int) -> list[float]:
    """Return the standard deviations of noise that the server names; none means no noise."""
    return [float(s) for s in cast("list[float]", asked.get("noise", [0.0] * count))]


def _check_keys(public: Sequence[bytes], neighbours: int) -> None:
    """Refuse keys that stand for several clients at once, the cheapest way to pretend that there are many."""
    if len(public) != 2 * neighbours + 2 or len(set(public)) < len(public):
        raise DisclosureError("the server passes on the same public key for several clients, or too few keys")


def _check_survivors(client: int, session: Session, stayed: set[int], dropped: set[int]) -> None:
    """Refuse what would give both secrets of a client away, or an input among too few.

    Raises:
        DisclosureError: says what is wrong.
    """
    if stayed & dropped:
        raise DisclosureError("the server asks for both secrets of a client, which would show its input")
    if client not in stayed or stayed | dropped != {*session.members, client}:
        raise DisclosureError(
            "the server's survivors are not those that this client has masked its input against"
        )
    if len(stayed) < session.threshold:
        raise DisclosureError(f"{len(stayed)} survivors; the threshold is {session.threshold}")
