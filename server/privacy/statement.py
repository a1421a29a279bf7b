"""The privacy guarantee of a run in words and numbers, for results, reports and bundles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

from shoal.common.config import Scenario
from shoal.common.privacy.accounting import neighbours
from shoal.common.privacy.mechanisms import mechanism_of, trusts_server
from shoal.common.privacy.noise import SOURCES, Source
from shoal.common.privacy.plan import ClientPrivacyPlan
from shoal.server.privacy.ledger import Ledger

_TRUST = {
    "client": "against everyone who sees the models; the server is trusted with single updates",
    "masked": "against everyone who sees the models, and against the server, which sees only noisy sums, as "
    "long as clients do not reveal their shares of the noise",
    "local": "against the server and everyone who sees the models",
    "record": "against the server and everyone who sees the models",
}
_ALWAYS_OUTSIDE = (
    "metrics, losses and row counts that clients send to the server",
    "validation and test rows",
    "rows held by several clients, or several rows of one person, beyond the unit of privacy",
)


def guarantee_of(
    scenario: Scenario, plan: ClientPrivacyPlan | None, epsilon: float, source: Source, ledger: Ledger
) -> Mapping[str, object] | None:
    """Return the current guarantee of a run; `None` without differential privacy.

    Args:
        scenario: of the run; plan: for units "client" and "local".
        epsilon: budget spent so far; source: of the noise; ledger: of the run.
    """
    privacy = scenario.privacy
    mechanism = mechanism_of(privacy)
    if not mechanism.guarantees:
        return None
    outside = list(_ALWAYS_OUTSIDE)
    masked = scenario.secure.aggregation and mechanism.server_noise
    covers = ["the weights of the model after every round"]
    if privacy.statistics_epsilon is not None:
        covers.append("the preprocessing, fitted from noisy sums")
        outside.insert(
            0, "towards the server: names of categories and words in at least min_count rows of a client"
        )
    else:
        outside.insert(0, "preprocessing statistics, which have no noise (privacy.statistics_epsilon)")
    return {
        "unit": privacy.unit,
        "member": mechanism.member,
        "epsilon": epsilon,
        "epsilon_known_cohorts": ledger.epsilon_known_cohorts,
        "against": _against(scenario, epsilon, ledger),
        "events": _events(ledger),
        "budget": privacy.epsilon,
        "delta": privacy.delta,
        "accountant": privacy.accountant,
        "noise_multiplier": _noise_multiplier(scenario, plan),
        "clip_norm": privacy.clip_norm,
        "clipping": privacy.clipping,
        "sampling": _sampling(scenario, plan),
        "neighbours": _neighbours(scenario, plan),
        "holds": _TRUST["masked" if masked else privacy.unit],
        "noise_source": SOURCES[source],
        "covers": covers,
        "not_covered": outside,
    }


def _against(scenario: Scenario, epsilon: float, ledger: Ledger) -> dict[str, str]:
    """Return adversary → epsilon against it, or why there is none."""
    known = ledger.epsilon_known_cohorts
    trusted = "none: it is trusted with single updates"
    return {
        "a reader of the models": f"{epsilon:.4g}",
        "a reader who also knows who took part in which round": f"{known:.4g}",
        "the server": trusted if trusts_server(scenario) else f"{known:.4g}",
    }


def _events(ledger: Ledger) -> list[dict[str, object]]:
    """Return the charges of the ledger, so that epsilon can be computed again (docs/privacy.md)."""
    return [asdict(charge) for charge in ledger.charges]


def _neighbours(scenario: Scenario, plan: ClientPrivacyPlan | None) -> str:
    """Describe which two data sets the guarantee makes hard to distinguish."""
    mechanism = mechanism_of(scenario.privacy)
    if mechanism.norms_apart == 2:  # its participation is known, and its update could be anything
        return f"differ in all that one {mechanism.member} holds"
    return neighbours(() if plan is None else plan.charges(1), mechanism.member)


def _noise_multiplier(scenario: Scenario, plan: ClientPrivacyPlan | None) -> float | None:
    """Return the standard deviation over the clipping norm; `None` if each client has its own."""
    if plan is None:
        return scenario.privacy.noise_multiplier
    return plan.noise_multiplier * mechanism_of(scenario.privacy).norms_apart


def _sampling(scenario: Scenario, plan: ClientPrivacyPlan | None) -> str:
    """Describe the sampling of a round, and whether the accounting uses it."""
    if plan is None:
        return "each row independently in each step (Poisson); every round is charged to each client"
    if plan.sampling == "everyone" or math.isclose(plan.share, 1):
        return "not used in the accounting"
    how = "independently (Poisson)" if plan.sampling == "poisson" else "a fixed number without replacement"
    return f"{plan.share:.3g} of the clients per round, {how}, used in the accounting"
