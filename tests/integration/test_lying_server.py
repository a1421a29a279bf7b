"""Attacks of a server that lies to a site: what its requests say must not change what the site guarantees."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from shoal.clients.kernel import PopulationAccount
from shoal.common.errors import BudgetError, MessageError
from shoal.common.messages import table
from shoal.common.messages.names import ARRAYS, METRICS_RECORD, SECURE, TRAIN_LOSS
from shoal.common.messages.requests import SecureTrainRequest
from shoal.common.messages.schema import parse, to_content
from shoal.common.privacy.charges import Charges
from shoal.common.weights import all_finite, record_to_weights, weights_to_record
from tests.helpers.site import Site, scenario

RECORD = ("privacy.unit=record", "privacy.epsilon=1")
LOCAL = ("privacy.unit=local", "privacy.epsilon=8")


def update(site: Site, **changed: object) -> np.ndarray:
    reply = site.ask(table.TRAIN, site.train_request(**changed))
    return np.concatenate([w.reshape(-1) for w in record_to_weights(reply.array_records[ARRAYS])])


@pytest.mark.parametrize("settings", [RECORD, LOCAL], ids=["record", "local"])
def test_stacked_training_does_not_turn_the_noise_off_nor_escape_the_account(
    settings: tuple[str, ...], tmp_path: Path
) -> None:
    """Without noise, all answers to one request are equal: the shuffle depends on round and seed only."""
    charges = Charges(tmp_path / "account.jsonl")
    site = Site(scenario(*settings), PopulationAccount(charges, "run"))
    answers = [update(site, execution_mode="stacked") for _ in range(3)]
    assert len(charges.entries) == 3
    assert all(not np.allclose(a, b, rtol=1e-3) for a, b in pairwise(answers))
    with pytest.raises(BudgetError):  # the noise is calculated for three rounds
        update(site, execution_mode="stacked", round_number=2)


def test_the_encoding_and_the_noise_of_a_secure_sum_are_not_for_the_server_to_choose() -> None:
    """Noise of NaN or 1e25 passed once, and was zero modulo 2^32."""
    site = Site(scenario("secure.aggregation=true", "privacy.unit=client", "privacy.epsilon=8"))
    honest = SecureTrainRequest(
        **vars(site.train_request()), session=b"a session of 16 ", secure_round=1, members=(0, 1, 2)
    )
    for name, value in {"noise": [float("nan")], "range": 1e-30, "levels": 1}.items():
        content = to_content(honest)
        content.config_records[SECURE][name] = value
        with pytest.raises(MessageError, match=f'no key "{name}"'):
            parse(SecureTrainRequest, content)


@pytest.mark.parametrize("settings", [RECORD, LOCAL], ids=["record", "local"])
def test_no_failure_tells_the_server_of_a_row(settings: tuple[str, ...]) -> None:
    """Weights so large that only old people's gradients overflow: the reply must not depend on them."""
    site = Site(scenario(*settings, "training.optimizer=sgd"), PopulationAccount(Charges(None), "run"))
    huge = weights_to_record([w * np.float32(1e38) for w in record_to_weights(site.weights)])
    reply = site.ask(table.TRAIN, site.train_request(weights=huge, learning_rate=1e-30))
    assert all_finite(record_to_weights(reply.array_records[ARRAYS]))
    assert np.isnan(reply.metric_records[METRICS_RECORD][TRAIN_LOSS])  # type: ignore[arg-type]


def test_the_exact_loss_stays_at_a_site_that_adds_noise() -> None:
    site = Site(scenario(*LOCAL), PopulationAccount(Charges(None), "run"))
    reply = site.ask(table.TRAIN, site.train_request())
    assert np.isnan(reply.metric_records[METRICS_RECORD][TRAIN_LOSS])  # type: ignore[arg-type]
