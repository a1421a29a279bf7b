"""The state that a client keeps between the stages of a session, in its `Context.state`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast

from flwr.app import ConfigRecord, RecordDict

from shoal.common.errors import DisclosureError
from shoal.common.messages.names import SECURE_SESSION

_Stage = Literal["keys", "shares", "input"]


@dataclass(frozen=True, slots=True, repr=False)  # it holds secrets, which must not end up in a log
class Session:
    """A session after one of its stages; fields set by later stages are empty.

    Attributes:
        id: given by the server; stage: the last stage answered.
        mask_key, share_key: private keys, for masks and for sealing; the second is deleted after use.
        clients: in the cohort; threshold: number of shares that reconstruct a secret.
        neighbours: client indices; their_mask_keys: public keys, in the same order.
        open_keys: keys that open what the neighbours have sealed, in the same order.
        seed: of this client's own mask; own_share: its share of that seed.
        members: the neighbours that it has masked its input against.
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
        """Return the session after a stage, with the fields that the stage sets."""
        return replace(self, stage=stage, **brought)

    def saved_in(self, state: RecordDict) -> RecordDict:
        """Return a client's state with this session, replacing any other."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        record = ConfigRecord({k: list(v) if isinstance(v, tuple) else v for k, v in values.items()})
        return RecordDict({**state, SECURE_SESSION: record})

    @classmethod
    def load(cls, state: RecordDict, session_id: bytes, after: _Stage) -> Session:
        """Return the session that a stage belongs to.

        Args:
            state: of the client; session_id: named by the server; after: the stage before this one.

        Raises:
            DisclosureError: the session is over, another one has begun, or the stage is not the next one:
                answering twice could reveal more than the sum.
        """
        record = state.get(SECURE_SESSION)
        if not isinstance(record, ConfigRecord) or record["id"] != session_id:
            raise DisclosureError("this session of secure aggregation is not open at this client")
        stage = str(record["stage"])
        if stage != after:
            raise DisclosureError(
                f'in this session of secure aggregation, the stage after "{stage}" is due, and each stage is '
                f'answered once; the request is for the stage after "{after}"'
            )
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
        return cls(**cast("dict[str, Any]", values))


def without_session(state: RecordDict) -> RecordDict:
    """Return a client's state without a session's secrets."""
    return RecordDict({name: record for name, record in state.items() if name != SECURE_SESSION})
