"""The final test of many sites: each client's rows are found in one pass over what came back."""

from __future__ import annotations

from collections.abc import Iterator

from shoal.common.events import ClientRow
from shoal.common.preprocessing import PreprocessingSpec, Statistics
from shoal.common.sites import Sites
from shoal.server.exchange import Exchange
from shoal.server.final_test import site_rows
from shoal.server.preprocessing.collect import FittedPreprocessing

COUNT = 300


class Counted(list[ClientRow]):
    """Rows that count how many of them were looked at."""

    looked_at = 0

    def __iter__(self) -> Iterator[ClientRow]:
        for row in super().__iter__():
            self.looked_at += 1
            yield row


def rows(shift: float) -> Counted:
    """Return a row a client, last client first."""
    found = Counted()
    for client in reversed(range(COUNT)):
        found.append(ClientRow(0, client, f"site {client}", "test", 9, 0.1, 1, 1, {"auc": client + shift}))
    return found


def test_a_final_test_looks_at_each_row_once() -> None:
    federated, local = rows(0.0), rows(0.5)
    fitted = FittedPreprocessing(PreprocessingSpec(), Statistics(), {}, {7: {"train": 20, "test": 5}})
    exchanges = {"federated": Exchange([], federated), "local": Exchange([], local)}
    sites = Sites(COUNT, lambda client: f"site {client}")
    found = site_rows(sites, range(COUNT), fitted, exchanges)  # type: ignore[arg-type]
    assert (federated.looked_at, local.looked_at) == (COUNT, COUNT)
    assert [row.client for row in found] == list(range(COUNT))
    assert [row.tests["federated"]["auc"].value for row in found] == list(range(COUNT))
    assert found[7].tests["local"]["auc"].value == 7.5
    assert (found[7].train_rows, found[7].test_rows) == (20, 5)
    assert (found[8].train_rows, found[8].test_rows) == (-1, 9)  # not told: what the test says it used
