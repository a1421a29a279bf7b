"""One session of secure aggregation over a Grid: the sum of vectors, and nothing of a single one.

Five stages, each one exchange with the clients that are still there: public keys, sealed shares, masked
inputs, shares that unmask the sum; the fifth, the sum, is the server's own. A client that fails in one stage
is not asked again; the session goes on while enough are left.
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
from shoal.server.secure.recovery import Roll, Told, unmasked

_SESSION_BYTES = 16
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Task:
    """What clients are to add up.

    Attributes:
        kind: message type of the masked input.
        content: of that message, shared by all clients.
        asked: goes into its record `SECURE`: "range", "levels", "noise" and what else the kind needs.
        length: numbers that each client gives.
        phase: of the rows; what: names the sum in errors.
    """

    kind: str
    content: RecordDict
    asked: Mapping[str, Any]
    length: int
    phase: Phase
    what: str


@dataclass(frozen=True, slots=True)
class SecureSum:
    """What a session gave.

    Attributes:
        total: the sum over the survivors, exact, (numbers,).
        survivors: clients whose input is in it; dropped: the others of the cohort. Ascending.
        exchange: a row for each client of the cohort, over all stages; no replies.
    """

    total: NDArray[np.int64]
    survivors: Sequence[int]
    dropped: Sequence[int]
    exchange: Exchange


def secure_sum(
    grid: Grid, sites: Sites, scenario: Scenario, clients: Sequence[int], number: int, task: Task
) -> SecureSum:
    """Add up vectors of a cohort so that nobody learns a single one.

    Args:
        grid: carries the messages; sites: the clients behind it.
        scenario: `secure` and `server.min_success` say how many may be lost.
        clients: the cohort, indices; number: the round, 0 outside rounds. It also tells the noise of
            sums of one purpose apart.
        task: what they add up.

    Raises:
        ConfigError: the cohort is too small for any secret.
        TooFewRepliesError: too many clients were lost.
    """
    session = _Session(grid, sites, scenario, number, task, len(clients))
    keys = session.keys([int(c) for c in clients])
    parameters = graph.choose(len(keys), scenario.secure.max_dropout, scenario.secure.max_colluding)
    order = sorted(keys)
    secrets.SystemRandom().shuffle(order)
    near = graph.neighbours(order, parameters.neighbours)
    session.least = max(session.least, parameters.least)
    sealed = session.shares(keys, near, parameters)
    inputs = session.inputs(sorted(sealed))
    mask_keys = {client: cast(bytes, record["mask"]) for client, record in keys.items()}
    roll = Roll(
        session.id, session.asked, parameters.threshold, near, mask_keys, sorted(sealed), sorted(inputs)
    )
    told = session.unmask(roll, sealed)
    with span("aggregate"):
        try:
            total = from_ring(unmasked(roll, inputs, told))
        except TooFewRepliesError as error:
            raise session.too_few(error.message) from error
    dropped = sorted({int(c) for c in clients} - set(inputs))
    return SecureSum(total, roll.survivors, dropped, Exchange([], list(session.rows.values())))


@dataclass(slots=True)
class _Session:
    """The exchanges of a session.

    Attributes:
        cohort: clients at the beginning; least: that have to stay; id: names the session.
        rows: client → what was exchanged with it so far.
        asked: digest of the request for masked inputs, once it is sent.
    """

    grid: Grid
    sites: Sites
    scenario: Scenario
    number: int
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
        """Ask for public keys."""
        asked = dict.fromkeys(clients, RecordDict({SECURE: self._record({})}))

        def checked(client: int, content: RecordDict) -> ConfigRecord:
            found = content.config_records[KEYS]
            if any(not isinstance(key, bytes) or len(key) != KEY_BYTES for key in found.values()):
                raise DisclosureError("the reply holds no two public keys")
            return found

        return self._stage("keys", table.SECURE_KEYS.name, KEYS, asked, checked)

    def shares(
        self,
        keys: Mapping[int, ConfigRecord],
        near: Mapping[int, Sequence[int]],
        parameters: graph.Parameters,
    ) -> dict[int, dict[int, bytes]]:
        """Pass public keys on; return client → neighbour → shares, which only the neighbour can read."""
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
        """Ask for masked inputs."""
        # One content for all: a Grid sends what messages share once.
        record = self._record({**self.task.asked, "round": self.number, "members": list(members)})
        content = RecordDict({**self.task.content, SECURE: record})
        self.asked = digest(content)

        def checked(client: int, content: RecordDict) -> Ring:
            vector = view(next(iter(content.array_records[MASKED].values())))
            if vector.shape != (self.task.length,):
                raise DisclosureError(
                    f"a masked input of shape {vector.shape}; {self.task.length} were asked for"
                )
            return vector

        return self._stage("input", self.task.kind, MASKED, dict.fromkeys(members, content), checked)

    def unmask(self, roll: Roll, sealed: Mapping[int, Mapping[int, bytes]]) -> Told:
        """Ask survivors for shares: of seeds of survivors, and of mask keys of those that were lost."""
        asked = {}
        for client in roll.survivors:
            senders = [v for v in roll.around(client, roll.members) if v != client]
            record = {
                "survivors": roll.around(client, roll.survivors),
                "dropped": roll.around(client, roll.dropped),
                "senders": senders,
                "sealed": [sealed[v][client] for v in senders],
            }
            asked[client] = RecordDict({SECURE: self._record(record)})
        told = Told()

        def checked(client: int, content: RecordDict) -> bool:
            found, near = content.config_records[UNMASK], {*roll.around(client, roll.members)}
            for name, shares in (("seeds", told.seeds), ("keys", told.keys)):
                whose = found[f"{name}-of"]
                if not isinstance(whose, list) or not near.issuperset(cast("list[int]", whose)):
                    raise DisclosureError("the reply holds shares of clients that are no neighbours")
                if not _are_bytes(found[name], len(whose)):
                    raise DisclosureError("the reply does not hold a share for each client that it names")
                for owner, share in zip(whose, cast("list[bytes]", found[name]), strict=True):
                    try:
                        shares.setdefault(cast(int, owner), {})[client + 1] = share_from_bytes(share)
                    except ValueError as error:
                        raise DisclosureError("the reply holds bytes that are no share") from error
            return True

        self._stage("unmask", table.SECURE_UNMASK.name, UNMASK, asked, checked)
        return told

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
        """Ask clients, and return what those gave whose replies can be used.

        Raises:
            TooFewRepliesError: they are too few to go on.
        """
        messages = [Message(content, self.sites.node(client), kind) for client, content in asked.items()]

        def whole(content: RecordDict) -> None:
            if record not in content:
                raise DisclosureError(f'the reply has no record "{record}"')

        timeout_s = self.scenario.resources.timeout_s
        exchange = ask(self.grid, self.sites, messages, self.task.phase, self.number, timeout_s, whole)
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
        # One that fails to unmask has given its input: it counts, and others have its shares.
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
            f"{self.task.what}: {what}; {self.least} have to stay ("
            f"secure.max_dropout = {self.scenario.secure.max_dropout:g}, "
            f"server.min_success = {self.scenario.server.min_success:g})."
            f"{' Failures:' if failed else ''}{listed}"
        )


def _are_bytes(values: object, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(isinstance(v, bytes) for v in values)
