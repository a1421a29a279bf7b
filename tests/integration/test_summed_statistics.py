"""Whole runs whose statistics are sums: what the server is told, and that the model is as good."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message
from summing import total_of
from watching import Seen, watching

from shoal.clients.shard import split
from shoal.common.config import Scenario
from shoal.common.config.file import load_scenario
from shoal.common.errors import DisclosureError
from shoal.common.messages import table
from shoal.common.messages.names import CONFIG, MASKED, METRICS_RECORD
from shoal.common.preprocessing.segment import segment
from shoal.common.preprocessing.sums.names import cut
from shoal.common.preprocessing.sums.plan import SumsPlan
from shoal.common.preprocessing.sums.questions import Questions
from shoal.server.app import Hooks, Outcome
from shoal.server.preprocessing.fit import fit_total
from shoal.server.preprocessing.sums import vector_of
from shoal.simulations import datasets
from shoal.simulations.run import coordinate

SHORT = ["training.rounds=3", "output.bootstrap=0", "output.compare=false", "resources.backend=serial"]
NOISY = ["privacy.unit=record", "privacy.noise_multiplier=1"]
SECRETS = ("麒麟", "凤凰", "貔貅")  # a word of one site each


def run(scenario: Scenario) -> tuple[Outcome, Seen]:
    seen: Seen = []
    found: list[Outcome] = []
    population = datasets.load_population(scenario)
    coordinate(scenario, population, Hooks([], lambda fitted: None), found.append, watching(seen))
    return found[0], seen


def auc(outcome: Outcome) -> float:
    """Return the mean of all test rows' sites."""
    rows = [row for row in outcome.sites if "auc" in row.tests["federated"]]
    return float(
        np.average(
            [row.tests["federated"]["auc"].value for row in rows], weights=[row.test_rows for row in rows]
        )
    )


@pytest.fixture(scope="module")
def clear() -> Outcome:
    return run(load_scenario("medical-thyroid", SHORT))[0]


def test_secure_sums_give_the_same_preprocessing_and_as_good_a_model(clear: Outcome) -> None:
    outcome, seen = run(load_scenario("medical-thyroid", [*SHORT, "secure.aggregation=true"]))
    ours, theirs = outcome.fitted.spec, clear.fitted.spec
    assert ours.categorical == theirs.categorical
    for one, other in zip(ours.numeric, theirs.numeric, strict=True):
        assert (one.name, one.indicator) == (other.name, other.indicator)
        assert (one.shift, one.scale) == pytest.approx((other.shift, other.scale), rel=1e-5)
        assert one.fill == pytest.approx(other.fill, rel=0.02)  # each within 1 % of the median
    assert auc(outcome) == pytest.approx(auc(clear), abs=0.01)
    assert not outcome.fitted.statistics
    assert not outcome.fitted.rows
    assert {row.train_rows for row in outcome.sites} == {-1}
    answers = [
        reply.content for request, reply in seen if request.metadata.message_type == table.SECURE_VECTOR.name
    ]
    assert len(answers) == 3 * 5  # numbers, moments and names of five sites
    for content in answers:
        assert set(content) == {METRICS_RECORD, MASKED}
        assert set(content[METRICS_RECORD]) == {"seconds"}
    assert not {table.STATISTICS.name, table.SUMS.name} & {
        request.metadata.message_type for request, _ in seen
    }


def test_noise_for_rows_leaves_what_many_rows_say(clear: Outcome) -> None:
    """Epsilon 4 for 6,400 rows at five sites, each of which adds all of its noise."""
    scenario = load_scenario("medical-thyroid", [*NOISY, "privacy.statistics_epsilon=4"])
    population = datasets.load_population(scenario)
    shards = [
        split(population.shard(client), scenario.data, scenario.seed, client)["train"]
        for client in range(len(population))
    ]
    spec = fit_total(total_of(shards, population.schema, scenario), population.schema, scenario.preprocessing)
    exact = {column.name: column for column in clear.fitted.spec.numeric}
    noisy = {column.name: column for column in spec.numeric}
    for name in ("age", "T3", "TT4", "FTI"):  # near their medians, which lie in bins 22 % wide
        assert noisy[name].fill == pytest.approx(exact[name].fill, rel=0.25)
        assert noisy[name].shift == pytest.approx(exact[name].shift, rel=0.05)
        assert noisy[name].scale == pytest.approx(exact[name].scale, rel=0.35)
    assert spec.categorical[0] == clear.fitted.spec.categorical[0]


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """Three sites of 200 Chinese texts; a third of each site's texts hold a word that no other site has."""
    folder = tmp_path_factory.mktemp("reviews")
    rng = np.random.default_rng(0)
    with (folder / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["site", "text", "label"])
        for site, secret in enumerate(SECRETS):
            for i in range(200):
                own = ["满意", "舒服"] if i % 2 else ["失望", "糟糕"]
                words = [*own, *rng.choice(["房间", "电脑", "故事", "服务"], 2), *([secret] * (i % 3 == 0))]
                table.writerow([f"site {site}", "，".join(words), "good" if i % 2 else "bad"])
    assert all(segment(f"满意，{secret}") == ["满意", "，", secret] for secret in SECRETS)
    return Scenario.model_validate(
        {
            "name": "reviews",
            "data": {
                "source": "csv",
                "path": str(folder / "reviews.csv"),
                "client_column": "site",
                "label": "label",
                "text_column": "text",
            },
            "preprocessing": {"vocabulary": 100, "tokens": 8},
            "model": {"name": "pooled-text"},
            "training": {"rounds": 1},
            "output": {"bootstrap": 0},
            "resources": {"backend": "serial"},
        }
    )


def changed(scenario: Scenario, **sections: dict[str, Any]) -> Scenario:
    return Scenario.model_validate(scenario.model_dump(exclude_unset=True) | sections)


def texts_in(message: Message) -> str:
    """Return everything in a message that could hold a word."""
    told = []
    for record in message.content.values():
        if isinstance(record, ConfigRecord):
            told += [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in record.values()]
        else:
            told += [str(key) for key in record]
    return " ".join(told)


def test_words_of_one_site_are_in_no_message(reviews: Scenario) -> None:
    """Under noise for rows, in the clear: the worst case, for the server sees each site's own vectors."""
    privacy = {"unit": "record", "statistics_epsilon": 200.0, "noise_multiplier": 1.0}
    scenario = changed(reviews, privacy=privacy)
    outcome, seen = run(scenario)
    words = outcome.fitted.spec.tokens
    assert words is not None
    assert {"满意", "失望", "，"} <= set(words.vocabulary)
    assert not {*SECRETS} & {*words.vocabulary}
    schema = datasets.load_population(scenario).schema
    questions, tables = Questions(SumsPlan.of(schema, scenario)), 0
    for request, reply in seen:
        for message in (request, reply):
            assert not [secret for secret in SECRETS if secret in texts_in(message)]
        if request.metadata.message_type == table.SUMS.name and request.content[CONFIG]["pass"] == "names":
            shapes = questions.read_tables(request.content.config_records[CONFIG])
            vector = vector_of(reply.content, shapes["text"].size)
            told = [shapes[column].read(part) for column, part in cut(vector, shapes)]
            assert told[0] is not None
            assert "满意" in told[0]
            assert not {*SECRETS} & {*told[0]}
            tables += 1
    assert tables == 3


def test_secure_sums_find_the_vocabulary_of_a_run_in_the_clear(reviews: Scenario) -> None:
    clear, _ = run(reviews)
    secure, _ = run(changed(reviews, secure={"aggregation": True}))
    assert secure.fitted.spec == clear.fitted.spec
    assert not {*SECRETS} & {*(secure.fitted.spec.tokens.vocabulary if secure.fitted.spec.tokens else ())}


def test_a_client_tells_nothing_for_sums_that_its_scenario_does_not_ask_for(reviews: Scenario) -> None:
    from flwr.app import Context, RecordDict

    from shoal.clients.app import make_client_app  # TensorFlow is not needed: no model is built
    from shoal.clients.runtime import ClientRuntime

    app = make_client_app(ClientRuntime(reviews, datasets.load_population(reviews)))
    asked = Message(RecordDict({CONFIG: ConfigRecord({"pass": "numbers"})}), 2, table.SUMS.name)
    context = Context(run_id=1, node_id=2, node_config={"partition-id": 0}, state=RecordDict(), run_config={})
    with pytest.raises(DisclosureError, match="does not use sums"):
        app(asked, context)
