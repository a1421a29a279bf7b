"""What a site is told before it takes part, and what it may refuse."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

from shoal.common.config import Scenario
from shoal.common.errors import DisclosureError
from shoal.common.messages import table
from shoal.common.messages.table import MESSAGES, MessageType
from shoal.common.preprocessing.sums.noise import is_asked_for_sums
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.schema import Schema

# What a site may refuse, by the name that its operator gives it; where two types share one, the first.
KINDS: Final[Mapping[str, MessageType]] = {
    one.site_name: one for one in reversed(list(MESSAGES.values())) if one.site_name
}
_WIDTH: Final = 100
_TRAINED: Final = {
    "none": "what training here changes in the model's weights",
    "client": "what training here changes in the weights, clipped to a largest norm; the server adds noise",
    "local": "what training here changes in the weights, with noise added here that hides this site",
    "record": "what training here changes in the weights, with noise in each step that hides single rows",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a site takes part.

    Attributes:
        refused: names in `KINDS` that it does not answer.
        least_clients: it takes no part among fewer.
    """

    refused: Set[str] = frozenset()
    least_clients: int = 1

    def refuses(self, message_type: str) -> str:
        """Return why a message is not answered, or ""."""
        known = MESSAGES.get(message_type)
        name = "" if known is None else known.site_name
        if not name:
            return f'DisclosureError: this site does not answer "{message_type[:40]}"'
        return f"DisclosureError: this site does not answer {name}" if name in self.refused else ""

    def check(self, clients: int) -> None:
        """Refuse to take part among too few, whose sums would tell of each.

        Args:
            clients: on the server's list, as the server says.

        Raises:
            DisclosureError: they are fewer than `least_clients`.
        """
        if clients < self.least_clients:
            raise DisclosureError(
                f"the server lists {clients} clients; this site takes part among {self.least_clients} or more"
            )


ANY_TERMS: Final = Terms()


def statement(scenario: Scenario, schema: Schema, server: str, clients: int, rows: int, terms: Terms) -> str:
    """Return what the server asks of a site and what will leave it, for its operator to read.

    Args:
        scenario, schema: that both sides have; server: its address; clients: on its list.
        rows: that the site has; terms: what it refuses.
    """
    training, model = scenario.training, scenario.model
    arguments = ", ".join(f"{key} = {value}" for key, value in model.args.items())
    asks = {
        "model": f"{model.name}{f' ({arguments})' if arguments else ''}",
        "training": f"up to {training.rounds} rounds, local_epochs = {training.local_epochs}, by "
        f"{training.optimizer}, aggregated by {scenario.strategy.name}",
        "clients": f"{clients} on the server's list",
        "rows": f"{rows:,} here; they are read here only",
    }
    if mechanism_of(scenario.privacy).guarantees:
        privacy = scenario.privacy
        spends = f"epsilon = {privacy.epsilon:g}" if privacy.epsilon else "as its noise gives"
        asks["privacy"] = f"unit {privacy.unit}, {spends} for all rounds, delta = {privacy.delta:g}"
    lines = [f'{server} asks this site to take part in "{scenario.name}":', "", *_pairs(asks)]
    lines += ["", "What will leave, and nothing else:", "", *_pairs(_leaves(scenario, schema, terms))]
    if terms.refused:
        lines += ["", f"This site refuses: {', '.join(sorted(terms.refused))}."]
    return "\n".join(lines)


def _leaves(scenario: Scenario, schema: Schema, terms: Terms) -> dict[str, str]:
    least = scenario.preprocessing.min_count
    beside = {
        "statistics": f"vectors of {len(schema.columns)} columns, to be added to those of other sites "
        "(docs/preprocessing.md)"
        if is_asked_for_sums(scenario)
        else f"counts, means and rounded quantiles of {len(schema.columns)} columns, none of fewer "
        f"than {least} rows (docs/preprocessing.md)",
        "train": _TRAINED[scenario.privacy.unit],
        "secure-keys": "public keys of the session",
        "secure-shares": "shares of secrets, sealed for other clients",
        "secure-train": "the model's update under masks, of which only the sum over all clients can be read",
        "secure-vector": "statistics under masks, of which only the sum over all clients can be read "
        "(docs/preprocessing.md)",
        "secure-unmask": "shares that take the masks off the sum",
    }
    # With secure aggregation updates leave under masks only, and nothing is masked without.
    left_out = (
        {"train", "statistics"}
        if scenario.secure.aggregation
        else {n for n in KINDS if n.startswith("secure-")}
    )
    if not scenario.output.compare:
        left_out.add("local")
    asked = [one.site_name for one in MESSAGES.values() if one.site_name]
    kinds = {**KINDS, **({"statistics": table.SUMS} if is_asked_for_sums(scenario) else {})}
    return {
        name: "; ".join(filter(None, [beside.get(name, ""), ", ".join(sorted(kinds[name].reply.metrics))]))
        for name in dict.fromkeys(asked)
        if name not in terms.refused and name not in left_out
    }


def _pairs(pairs: dict[str, str]) -> list[str]:
    return [
        line
        for key, text in pairs.items()
        for line in textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=f"  {key:<15}",
            subsequent_indent=" " * 17,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
