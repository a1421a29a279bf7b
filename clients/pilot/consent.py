"""The statement that a site's operator reads before it takes part, and the site's terms."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

from shoal.clients.algorithms import client_algorithm
from shoal.clients.kernel.account import Spent
from shoal.common.config import Scenario
from shoal.common.errors import DisclosureError
from shoal.common.messages import table
from shoal.common.messages.table import MESSAGES, MessageType
from shoal.common.preprocessing.sums.noise import is_asked_for_sums
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.schema import Schema

# What a site may refuse, by the name that its operator uses; if two types share one, the first.
KINDS: Final[Mapping[str, MessageType]] = {
    one.site_name: one for one in reversed(list(MESSAGES.values())) if one.site_name
}
_WIDTH: Final = 100
_TRAINED: Final = {
    "none": "the update of the model's weights from training here",
    "client": "the clipped update from training here; the server adds noise",
    "local": "the update from training here, with noise added here to hide this site's data",
    "record": "the update from training here, with noise in each step to hide single rows",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms on which a site takes part.

    Attributes:
        refused: names in `KINDS` of messages that it refuses.
        least_clients: minimum number of clients.
    """

    refused: Set[str] = frozenset()
    least_clients: int = 1

    def refuses(self, message_type: str) -> str:
        """Return why a message is refused, or ""."""
        known = MESSAGES.get(message_type)
        name = "" if known is None else known.site_name
        if not name:
            return f'DisclosureError: this site does not know the message type "{message_type[:40]}"'
        return f"DisclosureError: this site refuses {name} messages" if name in self.refused else ""

    def check(self, clients: int) -> None:
        """Refuse to take part with too few clients, whose sums would reveal single ones.

        Args:
            clients: number on the server's list, according to the server.

        Raises:
            DisclosureError: there are fewer than `least_clients`.
        """
        if clients < self.least_clients:
            raise DisclosureError(
                f"the server lists {clients} clients, but this site requires at least {self.least_clients}"
            )


ANY_TERMS: Final = Terms()


def statement(
    scenario: Scenario,
    schema: Schema,
    server: str,
    clients: int,
    rows: int,
    terms: Terms,
    account: tuple[Spent, Spent] | None = None,
) -> str:
    """Return the text for a site's operator: what the server asks for, and what the site will send.

    Args:
        scenario, schema: the same on both sides; server: its address; clients: number on its list.
        rows: number at this site; terms: of this site.
        account: what the site's population has spent before this run, and at most after it.
    """
    training, model = scenario.training, scenario.model
    arguments = ", ".join(f"{key} = {value}" for key, value in model.args.items())
    asks = {
        "model": f"{model.name}{f' ({arguments})' if arguments else ''}",
        "training": f"up to {training.rounds} rounds, local_epochs = {training.local_epochs}, with "
        f"{training.optimizer}, aggregated by {scenario.strategy.name}",
        "clients": f"{clients} on the server's list",
        "rows": f"{rows:,} at this site; they stay here",
    }
    if mechanism_of(scenario.privacy).guarantees:
        privacy = scenario.privacy
        budget = (
            f"epsilon = {privacy.epsilon:g}" if privacy.epsilon else "epsilon set by the noise multiplier"
        )
        asks["privacy"] = f"unit {privacy.unit}, {budget} for all rounds, delta = {privacy.delta:g}"
    if account is not None:
        asks["account"] = _account(*account)
    lines = [f'{server} asks this site to take part in "{scenario.name}":', "", *_pairs(asks)]
    lines += ["", "This site will send only:", "", *_pairs(_sends(scenario, schema, terms))]
    if terms.refused:
        lines += ["", f"This site refuses: {', '.join(sorted(terms.refused))}."]
    return "\n".join(lines)


def _account(before: Spent, after: Spent) -> str:
    text = f"runs of this population before: {before.runs}"
    if before.epsilon:
        text += f", epsilon = {before.epsilon:.3g}"
    if after.epsilon:
        text += f"; after this run at most epsilon = {after.epsilon:.3g} at delta = {after.delta:g} in all"
        return f"{text}, without metrics"
    return f"{text}; without a guarantee, nothing limits what answers reveal"


def _sends(scenario: Scenario, schema: Schema, terms: Terms) -> dict[str, str]:
    least = scenario.preprocessing.min_count
    extra = client_algorithm(scenario.strategy.name).sends
    explained = {
        "statistics": f"vectors for {len(schema.columns)} columns, which are added to those of other sites "
        "(docs/preprocessing.md)"
        if is_asked_for_sums(scenario)
        else f"counts, means and rounded quantiles of {len(schema.columns)} columns, none based on fewer "
        f"than {least} rows (docs/preprocessing.md)",
        "train": "; ".join(filter(None, [_TRAINED[scenario.privacy.unit], extra])),
        "secure-keys": "public keys of the session",
        "secure-shares": "shares of secrets, encrypted for other clients",
        "secure-train": "the masked update; only the sum over all clients can be read",
        "secure-vector": "masked statistics; only the sum over all clients can be read "
        "(docs/preprocessing.md)",
        "secure-unmask": "shares that remove the masks from the sum",
    }
    # With secure aggregation only masked updates are sent; without it, nothing is masked.
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
        name: "; ".join(filter(None, [explained.get(name, ""), ", ".join(sorted(kinds[name].reply.metrics))]))
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
