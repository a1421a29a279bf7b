"""The gate of a real site: what a server may ask, how often, and what a repeated question gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict

from shoal.clients.kernel import PopulationAccount
from shoal.clients.kernel.answers import Answers
from shoal.clients.kernel.gate import Gate
from shoal.clients.worker import Answer, Job, Worker, WorkerContext
from shoal.common.config import Scenario
from shoal.common.messages import table
from shoal.common.messages.names import FROZEN
from shoal.common.messages.requests import AloneRequest, AutotuneRequest, StatisticsRequest, TestRequest
from shoal.common.messages.schema import to_content
from shoal.common.messages.table import MessageType
from shoal.common.privacy.charges import Charges
from shoal.common.secure.digest import digest
from shoal.common.weights import record_to_weights, weights_to_record
from tests.helpers.site import SITES, Site, scenario

LOCAL = ("privacy.unit=local", "privacy.epsilon=8")


class Gated:
    """A site behind its gate; made again with the same folder, it is the site after a restart."""

    def __init__(self, folder: Path, config: Scenario, run: str = "run", kept: int = 3) -> None:
        self.account = PopulationAccount(Charges(folder / "account.jsonl"), run)
        self.site = Site(config, self.account)
        worker = Worker(lambda: self.site.app, WorkerContext(1, {}, SITES, show_errors=True))
        self.gate = Gate(worker, config, self.account, Answers(folder / run, kept))

    def ask(self, kind: MessageType, request: Any) -> Answer:
        (answer,) = self.gate.run(to_content(request), [Job(2, 0, kind.name, "", None)])
        return answer

    def train(self, number: int = 1, scale: float = 1.0) -> Answer:
        weights = weights_to_record([w * scale for w in record_to_weights(self.site.weights)])
        return self.ask(table.TRAIN, self.site.train_request(round_number=number, weights=weights))


def bits(answer: Answer) -> bytes:
    assert answer.content is not None, answer.error
    return digest(answer.content)


def test_a_repeated_question_gets_the_same_bytes_also_after_a_restart(
    tmp_path: Path,
) -> None:
    """The noise comes from the system: an answer computed again would be another release."""
    config = scenario(*LOCAL)
    first = Gated(tmp_path, config)
    given = bits(first.train())
    assert bits(first.train()) == given
    again = Gated(tmp_path, config)
    assert bits(again.train()) == given
    assert again.account.rounds == 1
    # The same request with the frozen weights that the site lacked is the same question.
    content = to_content(again.site.train_request())
    content[FROZEN] = weights_to_record([])
    (answer,) = again.gate.run(content, [Job(2, 0, table.TRAIN.name, "", None)])
    assert bits(answer) == given


def test_a_new_run_gets_no_new_budget_for_the_population(tmp_path: Path) -> None:
    for run in ("a", "b", "c"):
        assert Gated(tmp_path, scenario(*LOCAL), run).train().content is not None
    account = PopulationAccount(Charges(tmp_path / "account.jsonl"), "d")
    assert account.spent.rounds == 3
    assert account.spent.epsilon > 1.5 * 8 / 3**0.5  # more than a single run of three rounds spends in one


def test_questions_beyond_the_plan_are_refused(tmp_path: Path) -> None:
    """Three rounds are agreed, and two more for a server that was killed."""
    site = Gated(tmp_path, scenario())
    for k in range(5):
        assert site.train(1 + k, scale=1 + k / 10).error == ""
    refused = site.train(6)
    assert refused.content is None
    assert "answered 5 different questions of this kind, all that it agreed to" in refused.error
    evaluate = [site.ask(table.EVALUATE, site.site.evaluate_request(round_number=k)) for k in range(8)]
    assert [bool(answer.content) for answer in evaluate] == [True] * 6 + [
        False
    ] * 2  # 0, 1, 2, 3 and two more


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        ((), table.LOCAL, "output.compare is false"),
        ((), table.SUMS, "does not use sums"),
        (("secure.aggregation=true",), table.STATISTICS, "secure.aggregation is true"),
        (
            (*LOCAL, "privacy.statistics_epsilon=1", "data.exclude=['sex']"),
            table.STATISTICS,
            "not for its own",
        ),
        (("secure.aggregation=true",), table.TRAIN, "secure.aggregation is true"),
        (("data.validation_fraction=0",), table.EVALUATE, "validation_fraction is 0"),
        ((), table.AUTOTUNE_TYPE, "no real site answers it"),
    ],
)
def test_what_the_site_s_scenario_does_not_plan_is_refused_by_name(
    tmp_path: Path, settings: tuple[str, ...], kind: MessageType, says: str
) -> None:
    site = Gated(tmp_path, scenario("output.compare=false", *settings))
    model = {"weights": site.site.weights, "preprocessing": site.site.preprocessing}
    requests = {
        table.LOCAL: AloneRequest(**model, learning_rates=(0.1,)),
        table.SUMS: table.SUMS.request(pass_name="numbers"),
        table.STATISTICS: StatisticsRequest(),
        table.TRAIN: site.site.train_request(),
        table.EVALUATE: site.site.evaluate_request(),
        table.AUTOTUNE_TYPE: AutotuneRequest(**model, learning_rate=0.1),
    }
    answer = site.ask(kind, requests[kind])
    assert answer.content is None
    assert says in answer.error
    assert not (tmp_path / "account.jsonl").exists()


def test_an_answer_whose_bytes_are_gone_is_not_computed_again(tmp_path: Path) -> None:
    site = Gated(tmp_path, scenario(*LOCAL), kept=1)
    site.train(1)
    site.train(2)
    assert "answered before, and the answer is no longer kept" in site.train(1).error
    assert site.account.rounds == 2


def test_a_different_question_for_the_same_round_is_charged_again(tmp_path: Path) -> None:
    """Three rounds are budgeted: another answer for round 1 leaves one round less."""
    site = Gated(tmp_path, scenario(*LOCAL))
    assert site.train(1).content is not None
    assert site.train(1, scale=2.0).content is not None
    assert site.train(2).content is not None
    assert "BudgetError" in site.train(3).error


def test_a_closed_schema_holds_before_anything_is_recorded(tmp_path: Path) -> None:
    site = Gated(tmp_path, scenario())
    content = to_content(TestRequest(weights=site.site.weights, preprocessing=site.site.preprocessing))
    content.config_records["config"]["privacy"] = "none"
    (answer,) = site.gate.run(content, [Job(2, 0, table.TEST.name, "", None)])
    assert 'MessageError: a TestRequest has no key "privacy"' in answer.error
    (answer,) = site.gate.run(RecordDict(), [Job(2, 0, "query.everything", "", None)])
    assert answer.content is None
    assert not list((tmp_path / "run").iterdir())


def test_requests_that_differ_in_any_field_are_different_questions(tmp_path: Path) -> None:
    site = Gated(tmp_path, scenario())
    honest = site.site.train_request()
    bits_of = {bits(site.ask(table.TRAIN, r)) for r in (honest, replace(honest, learning_rate=0.1))}
    assert len(bits_of) == 2
