"""What a run promises and keeps, in words and numbers, for results, reports and hand-overs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from shoal.common.config import Scenario
from shoal.common.privacy.accounting import neighbours
from shoal.common.privacy.noise import SOURCES, Source
from shoal.common.privacy.plan import ClientPrivacyPlan

_MEMBER = {"client": "client", "local": "client", "record": "training row"}
_TRUST = {
    "client": "against everybody who sees the models, while the server is trusted with single updates",
    "masked": "against everybody who sees the models, and against the server, which sees noisy sums only, as "
    "long as clients do not tell it their shares of the noise",
    "local": "against the server and everybody who sees the models",
    "record": "against the server and everybody who sees the models",
}
_ALWAYS_OUTSIDE = (
    "metrics, losses and row counts that clients tell the server",
    "validation and test rows",
    "rows that several clients hold, or several rows of one person, beyond what the unit says",
)


def promised(
    scenario: Scenario, plan: ClientPrivacyPlan | None, epsilon: float, source: Source
) -> Mapping[str, object] | None:
    """Return the promise of a run as it stands; `None` where nothing is promised.

    Args:
        scenario: of the run; plan: for units "client" and "local".
        epsilon: that is spent; source: of the noise.
    """
    privacy = scenario.privacy
    if privacy.unit == "none":
        return None
    outside = list(_ALWAYS_OUTSIDE)
    masked = scenario.secure.aggregation and privacy.unit == "client"
    covers = ["the weights of the model after every round"]
    if privacy.statistics_epsilon is not None:
        covers.append("the preprocessing, made of sums with noise")
        outside.insert(
            0, "names of categories and words that min_count rows of a client hold, towards the server"
        )
    else:
        outside.insert(0, "statistics of preprocessing, which have no noise (privacy.statistics_epsilon)")
    return {
        "unit": privacy.unit,
        "member": _MEMBER[privacy.unit],
        "epsilon": epsilon,
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


def _neighbours(scenario: Scenario, plan: ClientPrivacyPlan | None) -> str:
    """Say which two data sets nobody can tell apart well."""
    member = _MEMBER[scenario.privacy.unit]
    if scenario.privacy.unit == "local":  # that it took part is no secret, and its update could be any
        return f"differ in all that one {member} holds"
    return neighbours(() if plan is None else plan.charges(1), member)


def _noise_multiplier(scenario: Scenario, plan: ClientPrivacyPlan | None) -> float | None:
    """Return the standard deviation over the clipping norm; `None` where each client has its own."""
    if plan is None:
        return scenario.privacy.noise_multiplier
    return plan.noise_multiplier * (2 if scenario.privacy.unit == "local" else 1)


def _sampling(scenario: Scenario, plan: ClientPrivacyPlan | None) -> str:
    """Say who takes part in a round, and whether that is counted on."""
    if plan is None:
        return "each row by itself in each step (Poisson); all rounds counted for each client"
    if plan.sampling == "everyone" or math.isclose(plan.share, 1):
        return "not counted on"
    how = "each by itself (Poisson)" if plan.sampling == "poisson" else "a fixed number without replacement"
    return f"{plan.share:.3g} of the clients a round, {how}, counted on"
