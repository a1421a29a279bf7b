"""The hash of what server and clients must have in common before they work together."""

from __future__ import annotations

import json
from hashlib import sha256

from shoal.common.config import Scenario
from shoal.common.schema import Schema


def agreement(scenario: Scenario, schema: Schema) -> str:
    """Return a hash of everything that determines a client's work: scenario and schema."""
    common = scenario.model_dump(mode="json", exclude={"data": {"path"}, "resources": True, "output": True})
    text = json.dumps([common, json.loads(schema.to_json())], sort_keys=True)
    return sha256(text.encode()).hexdigest()
