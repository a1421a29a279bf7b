"""One session of secure aggregation over a Grid: reveals the sum of vectors and no single vector.

The server exchanges public keys, sealed shares, masked inputs and unmasking shares with the clients still in
the session, and then computes the sum. A client that fails in one stage takes no part in later ones; the
session continues while enough clients are left.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from shoal.common.arrays import view
from shoal.common.config import Scenario
from shoal.common.errors import DisclosureError, ShoalError, TooFewRepliesError
from shoal.common.events import ClientRow, Phase
from shoal.common.messages import table
from shoal.common.messages.names import KEYS, MASKED, SECURE, SHARES, UNMASK
from shoal.common.profiling import span
from shoal.common.secure import graph
from shoal.common.secure.agreement import KEY_BYTES
from shoal.common.secure.digest import digest
from shoal.common.secure.field import share_from_bytes
from shoal.common.secure.fixed_point import from_ring
from shoal.common.secure.masks import Ring
from shoal.common.sites import Sites
from shoal.server.exchange import Exchange, ask
from shoal.server.secure.recovery import Participants, RevealedShares, unmasked

_SESSION_BYTES = 16
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Task:
    """What clients add up.

    Attributes:
        kind: message type of the masked input.
        content: of that message, shared by all clients.
        length: length of each client's vector.
        phase: phase of the client rows; what: names the sum in error texts.
    """

    kind: str
    content: RecordDict
    length: int
    phase: Phase
    what: str


@dataclass(frozen=True, slots=True)
class SecureSum:
    """The result of a session.

    Attributes:
        total: the sum over the survivors, exact, (numbers,).
        clients: in the session, of which the encoding depends.
        survivors: clients whose input is in the sum; dropped: the rest of the cohort. Ascending.
        exchange: a row for each client of the cohort, over all stages; no replies.
    """

    total: NDArray[np.int64]
    clients: int
    survivors: Sequence[int]
    dropped: Sequence[int]
    exchange: Exchange


def secure_sum(
    grid: Grid, sites: Sites, scenario: Scenario, clients: Sequence[int], round_number: int, task: Task
) -> SecureSum:
    """Add up one vector from each client of a cohort, without revealing any single vector.

    Args:
        grid: carries the messages; sites: the clients.
        scenario: `secure` and `server.min_success` limit how many clients may be lost.
        clients: the cohort, indices.
        round_number: the round, 0 outside rounds; also separates the noise of sums with the same purpose.
        task: what to add up.

    Raises:
        ConfigError: the cohort is too small to share secrets.
        TooFewRepliesError: too many clients were lost.
    """
    session = _Session(grid, sites, scenario, round_number, task, len(clients))
    keys = session.keys([int(c) for c in clients])
    parameters = graph.choose(len(keys), scenario.secure.max_dropout, scenario.secure.max_colluding)
    order = sorted(keys)
    secrets.SystemRandom().shuffle(order)
    near = graph.neighbours(order, parameters.neighbours)
    session.least = max(session.least, parameters.least)
    sealed = session.shares(keys, near, parameters)
    inputs = session.inputs(sorted(sealed))
    mask_keys = {client: cast(bytes, record["mask"]) for client, record in keys.items()}
    participants = Participants(
        session.id, session.asked, parameters.threshold, near, mask_keys, sorted(sealed), sorted(inputs)
    )
    revealed = session.unmask(participants, sealed)
    with span("aggregate"):
        try:
            total = from_ring(unmasked(participants, inputs, revealed))
        except TooFewRepliesError as error:
            raise session.too_few(error.message) from error
    dropped = sorted({int(c) for c in clients} - set(inputs))
    exchange = Exchange([], list(session.rows.values()))
    return SecureSum(total, parameters.clients, participants.survivors, dropped, exchange)


@dataclass(slots=True)
class _Session:
    """The exchanges of a session.

    Attributes:
        cohort: number of clients at the start; least: how many must stay; id: identifies the session.
        rows: client → totals of its exchanges so far.
        asked: digest of the request for masked inputs, once sent.
    """

    grid: Grid
    sites: Sites
    scenario: Scenario
    round_number: int
    task: Task
    cohort: int
    least: int = 0
    id: bytes = field(default_factory=lambda: secrets.token_bytes(_SESSION_BYTES))
    rows: dict[int, ClientRow] = field(default_factory=dict)
    asked: bytes = b""

    def __post_init__(self) -> None:
        config = self.scenario
        first = graph.choose(self.cohort, config.secure.max_dropout, config.secure.max_colluding)
        self.least = max(first.least, math.ceil(config.server.min_success * self.cohort))

    def keys(self, clients: Sequence[int]) -> dict[int, ConfigRecord]:
        """Request public keys."""
        asked = dict.fromkeys(clients, RecordDict({SECURE: self._record({})}))

        def checked(client: int, content: RecordDict) -> ConfigRecord:
            found = content.config_records[KEYS]
            if any(not isinstance(key, bytes) or len(key) != KEY_BYTES for key in found.values()):
                raise DisclosureError("the reply does not hold two public keys")
            return found

        return self._stage("keys", table.SECURE_KEYS.name, KEYS, asked, checked)

    def shares(
        self,
        keys: Mapping[int, ConfigRecord],
        near: Mapping[int, Sequence[int]],
        parameters: graph.Parameters,
    ) -> dict[int, dict[int, bytes]]:
        """Forward public keys; return client → neighbour → shares, which only the neighbour can read."""
        asked = {
            client: RecordDict(
                {
                    SECURE: self._record(
                        {
                            "clients": parameters.clients,
                            "threshold": parameters.threshold,
                            "neighbours": list(near[client]),
                            "mask-keys": [keys[v]["mask"] for v in near[client]],
                            "share-keys": [keys[v]["share"] for v in near[client]],
                        }
                    )
                }
            )
            for client in keys
        }

        def checked(client: int, content: RecordDict) -> dict[int, bytes]:
            found = content.config_records[SHARES]
            receivers, texts = found["for"], found["sealed"]
            if receivers != list(near[client]) or not _are_bytes(texts, len(near[client])):
                raise DisclosureError("the reply does not hold shares for each neighbour")
            return dict(zip(near[client], cast("list[bytes]", texts), strict=True))

        return self._stage("shares", table.SECURE_SHARES.name, SHARES, asked, checked)

    def inputs(self, members: Sequence[int]) -> dict[int, Ring]:
        """Request masked inputs."""
        # One shared content: a Grid sends content that messages share only once.
        record = self._record({"round": self.round_number, "members": list(members)})
        content = RecordDict({**self.task.content, SECURE: record})
        self.asked = digest(content)

        def checked(client: int, content: RecordDict) -> Ring:
            vector = view(next(iter(content.array_records[MASKED].values())))
            if vector.shape != (self.task.length,):
                raise DisclosureError(f"a masked input of shape {vector.shape}; expected {self.task.length}")
            return vector

        return self._stage("input", self.task.kind, MASKED, dict.fromkeys(members, content), checked)

    def unmask(self, participants: Participants, sealed: Mapping[int, Mapping[int, bytes]]) -> RevealedShares:
        """Request from survivors the seed shares of survivors and the mask-key shares of dropped clients."""
        asked = {}
        for client in participants.survivors:
            senders = [v for v in participants.around(client, participants.members) if v != client]
            record = {
                "survivors": participants.around(client, participants.survivors),
                "dropped": participants.around(client, participants.dropped),
                "senders": senders,
                "sealed": [sealed[v][client] for v in senders],
            }
            asked[client] = RecordDict({SECURE: self._record(record)})
        revealed = RevealedShares()

        def checked(client: int, content: RecordDict) -> bool:
            found, near = content.config_records[UNMASK], {*participants.around(client, participants.members)}
            for name, shares in (("seeds", revealed.seeds), ("keys", revealed.keys)):
                whose = found[f"{name}-of"]
                if not isinstance(whose, list) or not near.issuperset(cast("list[int]", whose)):
                    raise DisclosureError("the reply holds shares of clients that are not neighbours")
                if not _are_bytes(found[name], len(whose)):
                    raise DisclosureError("the reply does not hold a share for each client that it names")
                for owner, share in zip(whose, cast("list[bytes]", found[name]), strict=True):
                    try:
                        shares.setdefault(cast(int, owner), {})[client + 1] = share_from_bytes(share)
                    except ValueError as error:
                        raise DisclosureError("the reply holds bytes that are not a share") from error
            return True

        self._stage("unmask", table.SECURE_UNMASK.name, UNMASK, asked, checked)
        return revealed

    def _record(self, asked: Mapping[str, Any]) -> ConfigRecord:
        return ConfigRecord({"session": self.id, **asked})

    def _stage(
        self,
        name: str,
        kind: str,
        record: str,
        asked: Mapping[int, RecordDict],
        checked: Callable[[int, RecordDict], _T],
    ) -> dict[int, _T]:
        """Send one stage's requests, and return the usable replies by client.

        Raises:
            TooFewRepliesError: too few to continue.
        """
        messages = [Message(content, self.sites.node(client), kind) for client, content in asked.items()]

        def whole(content: RecordDict) -> None:
            if record not in content:
                raise DisclosureError(f'the reply has no record "{record}"')

        timeout_s = self.scenario.resources.timeout_s
        exchange = ask(self.grid, self.sites, messages, self.task.phase, self.round_number, timeout_s, whole)
        errors = {row.client: row.error for row in exchange.rows}
        found = {}
        for reply in exchange.accepted:
            client = self.sites.client(reply.metadata.src_node_id)
            try:
                found[client] = checked(client, reply.content)
            except ShoalError as error:
                errors[client] = f"{type(error).__name__}: {error.message}"
        for row in exchange.rows:
            self._note(replace(row, error=errors[row.client] and f"{name}: {errors[row.client]}"), name)
        # A client that fails to unmask has given its input: it counts, and others hold its shares.
        if len(found) < self.least and name != "unmask":
            raise self.too_few(f'{len(found)} of {self.cohort} clients are left after the stage "{name}"')
        return found

    def _note(self, row: ClientRow, stage: str) -> None:
        before = self.rows.get(row.client)
        if before is None:
            self.rows[row.client] = row
            return
        self.rows[row.client] = replace(
            row,
            seconds=before.seconds + row.seconds,
            bytes_up=before.bytes_up + row.bytes_up,
            bytes_down=before.bytes_down + row.bytes_down,
            error="" if stage == "unmask" else row.error,
        )

    def too_few(self, what: str) -> TooFewRepliesError:
        """Return the error of a session that lost too many, with the first reasons."""
        failed = [f"{row.name}: {row.error}" for row in self.rows.values() if row.error]
        listed = "".join(f"\n  {line}" for line in failed[:5])
        return TooFewRepliesError(
            f"{self.task.what}: {what}; {self.least} must stay ("
            f"secure.max_dropout = {self.scenario.secure.max_dropout:g}, "
            f"server.min_success = {self.scenario.server.min_success:g})."
            f"{' Failures:' if failed else ''}{listed}"
        )


def _are_bytes(values: object, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(isinstance(v, bytes) for v in values)
