"""What a client keeps between the stages of a session, in its `Context.state`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast

from flwr.app import ConfigRecord, RecordDict

from shoal.common.errors import DisclosureError
from shoal.common.messages.names import SECURE_SESSION

_Stage = Literal["keys", "shares", "input"]


@dataclass(frozen=True, slots=True, repr=False)  # it holds secrets, which shall not end up in a log
class Session:
    """A session after one of its stages; what a later stage brings is empty before it.

    Attributes:
        id: that the server gave; stage: the last one answered.
        mask_key, share_key: private keys, for masks and for what is sealed; the second is gone once it is.
        clients: in the cohort; threshold: shares that give a secret back.
        neighbours: client indices; their_mask_keys: public ones, in the same order.
        open_keys: with which what the neighbours have sealed is read, in the same order.
        seed: of the mask of its own; own_share: of that seed.
        members: those of the neighbours that it has masked its input against.
    """

    id: bytes
    stage: _Stage
    mask_key: bytes
    share_key: bytes
    clients: int = 0
    threshold: int = 0
    neighbours: tuple[int, ...] = ()
    their_mask_keys: tuple[bytes, ...] = ()
    open_keys: tuple[bytes, ...] = ()
    seed: bytes = b""
    own_share: bytes = b""
    members: tuple[int, ...] = ()

    def after(self, stage: _Stage, **brought: Any) -> Session:
        """Return the session after a stage and what it brought."""
        return replace(self, stage=stage, **brought)

    def saved_in(self, state: RecordDict) -> RecordDict:
        """Return a client's state with this session, in place of any other."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        record = ConfigRecord({k: list(v) if isinstance(v, tuple) else v for k, v in values.items()})
        return RecordDict({**state, SECURE_SESSION: record})

    @classmethod
    def load(cls, state: RecordDict, session_id: bytes, after: _Stage) -> Session:
        """Return the session that a stage belongs to.

        Args:
            state: of the client; session_id: that the server names; after: the stage before it.

        Raises:
            DisclosureError: it is over, another one has begun, or the stage is not the next: an answer
                twice could tell more than the sum.
        """
        record = state.get(SECURE_SESSION)
        if not isinstance(record, ConfigRecord) or record["id"] != session_id:
            raise DisclosureError("this session of secure aggregation is not open at this client")
        stage = str(record["stage"])
        if stage != after:
            raise DisclosureError(
                f'in this session of secure aggregation the stage after "{stage}" is due, and each is '
                f'answered once; this one comes after "{after}"'
            )
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
        return cls(**cast("dict[str, Any]", values))


def without_session(state: RecordDict) -> RecordDict:
    """Return a client's state without what a session left in it: its secrets."""
    return RecordDict({name: record for name, record in state.items() if name != SECURE_SESSION})
