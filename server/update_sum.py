"""Adds up the replies to a training dispatch, in an order that does not depend on who sent what.

Only here are updates decoded and combined with the weights that they started from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from numpy.typing import NDArray

from shoal.common.arrays import NumpyArray, view
from shoal.common.errors import DisclosureError
from shoal.common.flower_shim import number_message
from shoal.common.messages.names import ARRAYS, CLIENTS, EXAMPLES, EXTRA, TRAIN_LOSS, WEIGHT, WITHIN
from shoal.common.messages.replies import numbers_of
from shoal.common.sites import Sites
from shoal.common.update.codecs import Codec
from shoal.common.update.mean import UpdateMean
from shoal.common.weights import record_to_weights


@dataclass(frozen=True, slots=True)
class UpdateSum:
    """The sum of the updates of a cohort.

    Attributes:
        updates: Σ weight · update, one array for each shared weight.
        weight: Σ weight.
        within: sum over clients of +1/2 for an update within the clipping norm and -1/2 for one that was
            clipped (adaptive clipping only).
        loss: mean training loss by weight; NaN without clients; not covered by the privacy guarantee.
        examples: rows trained on.
        extra: weighted mean of the algorithm's arrays that clients sent with their updates; empty if none.
    """

    updates: list[NDArray[np.float64]]
    weight: float
    within: float
    loss: float
    examples: float
    extra: Sequence[NDArray[Any]] = field(default_factory=list)


class UpdateReader:
    """Decodes the updates of a run.

    Args:
        codec: encoding of single updates; sites: the clients.
    """

    def __init__(self, codec: Codec, sites: Sites) -> None:
        self._codec = codec
        self._sites = sites

    def check(self, content: RecordDict, start: ArrayRecord) -> None:
        """Refuse arrays that are not an update of these weights.

        Raises:
            DisclosureError: their shapes or types differ.
        """
        arrays, like = self._arrays(content), record_to_weights(start)
        if CLIENTS in content:
            fits = [(a.shape, a.dtype) for a in arrays] == [(w.shape, w.dtype) for w in like]
        else:
            fits = self._codec.fits(arrays, like)
        if not fits:
            raise DisclosureError("the arrays in a reply are not an update of the model that was sent")

    def decode(self, content: RecordDict, like: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the update of one client, or the mean update of the clients of one process."""
        arrays = self._arrays(content)
        return arrays if CLIENTS in content else self._codec.decode(arrays, like)

    def as_weights(self, reply: Message, start: ArrayRecord) -> Message:
        """Return a reply as a stock strategy expects it: the start weights plus the update."""
        like, meta = record_to_weights(start), reply.metadata
        moved = ArrayRecord()
        for name, w, u in zip(start, like, self.decode(reply.content, like), strict=True):
            moved[name] = NumpyArray(w + u)
        asked = Message(RecordDict(), meta.src_node_id, meta.message_type)
        number_message(asked)
        return Message(RecordDict({**reply.content, ARRAYS: moved}), reply_to=asked)

    def total(
        self, replies: Sequence[Message], start: ArrayRecord, cohort: Sequence[int], group: int
    ) -> UpdateSum:
        """Add up the replies of a cohort, first within groups and then over groups.

        Args:
            replies: without errors, in any order; start: the weights that these clients started from.
            cohort: indices of the clients in the cohort, ascending; group: clients in a group
                (`group_size`).
        """
        like = record_to_weights(start)
        places = {client: k // group for k, client in enumerate(cohort)}
        total, extra, within, loss, examples = UpdateMean(), UpdateMean(), 0.0, 0.0, 0.0
        for members in self._grouped(replies, places):
            mean, extra_mean = UpdateMean(), UpdateMean()
            for content in members:
                numbers = numbers_of(content)
                weight = numbers.get(WEIGHT, numbers[EXAMPLES])
                mean.add(self.decode(content, like), weight)
                if isinstance(record := content.get(EXTRA), ArrayRecord):
                    extra_mean.add(record_to_weights(record), weight)
                within += numbers.get(WITHIN, 0.0)
                loss += weight * numbers[TRAIN_LOSS]
                examples += numbers[EXAMPLES]
            total.add(mean.mean(), mean.weight)
            if extra_mean.count:
                extra.add(extra_mean.mean(), extra_mean.weight)
        updates = total.sum() if total.count else [np.zeros(w.shape) for w in like]
        mean_loss = loss / total.weight if total.weight else math.nan
        return UpdateSum(
            updates, total.weight, within, mean_loss, examples, extra.mean() if extra.count else []
        )

    def _grouped(self, replies: Sequence[Message], places: dict[int, int]) -> list[list[RecordDict]]:
        """Return the contents of replies by group, each by ascending client."""
        by_node = sorted(replies, key=lambda reply: reply.metadata.src_node_id)
        groups: dict[int, list[RecordDict]] = {}
        for reply in by_node:
            client = self._sites.client(reply.metadata.src_node_id)
            groups.setdefault(places[client], []).append(reply.content)
        return [groups[place] for place in sorted(groups)]

    @staticmethod
    def _arrays(content: RecordDict) -> list[NDArray[Any]]:
        return [view(array) for array in content.array_records[ARRAYS].values()]
