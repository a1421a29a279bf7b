"""Writes the bundle of a finished run; the same run and key produce the same bytes."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path, PurePath
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shoal.common.config import Scenario
from shoal.common.config.file import dump_toml
from shoal.common.errors import RunError
from shoal.common.journal import write_atomically
from shoal.simulations.handover.archive import sealed, zipped
from shoal.simulations.handover.documents import (
    AUDIT_ROOT,
    audit_root,
    data_sheet,
    how_to_verify,
    privacy_events,
    privacy_statement,
)
from shoal.simulations.handover.model_card import model_card
from shoal.simulations.report.assessment import assessment_markdown
from shoal.simulations.report.facts import Facts
from shoal.simulations.results import RunFolder

# Copied unchanged from the run folder.
_AS_THEY_ARE: Final = ("model.keras", "environment.json", "schema.json", "sites.parquet")
_BY_ROUND: Final = ("rounds.parquet", "clients.parquet")  # they tell who took part in which round


def write_bundle(
    run: RunFolder,
    path: Path,
    key: Ed25519PrivateKey | None = None,
    intended_use: str | None = None,
) -> None:
    """Write the bundle of a run.

    Args:
        run: a finished run; path: of the zip, which is replaced if it exists.
        key: the operator's, or `None` for no signature.
        intended_use: Markdown for the model card, or `None` to leave it open.

    Raises:
        RunError: the run is not finished, or lacks a file.
        IntegrityError: its audit log is not intact.
    """
    status = run.status()
    if status not in ("finished", "stopped early"):
        raise RunError(f"{run.name} is {status}; only a finished run can be exported")
    bundle = zipped(sealed(_files(run, key is not None, intended_use), key))
    try:
        write_atomically(path, bundle)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from error


def _files(run: RunFolder, signed: bool, intended_use: str | None) -> dict[str, bytes]:
    facts = Facts.of(run)
    # Where epsilon counts on cohorts being secret, the bundle must not publish them.
    names = _AS_THEY_ARE if facts.cohorts_are_secret else (*_AS_THEY_ARE, *_BY_ROUND)
    found = {name: _read(run, name) for name in names}
    preprocessing = _read(run, "preprocessing.json").decode()
    texts = {
        "MODEL_CARD.md": model_card(
            facts, preprocessing, sha256(found["model.keras"]).hexdigest(), intended_use
        ),
        "DATA_SHEET.md": data_sheet(facts),
        "PRIVACY.md": privacy_statement(facts),
        "ASSESSMENT.md": assessment_markdown(facts),
        "VERIFY.md": how_to_verify(signed=signed, logged=facts.chain is not None),
        "config.toml": dump_toml(_without_places(facts.scenario)),
    }
    if (events := privacy_events(facts)) is not None:
        texts["PRIVACY.json"] = events
    if facts.chain is not None:
        texts[AUDIT_ROOT] = audit_root(facts.chain.require_whole())
    return found | {name: text.encode() for name, text in texts.items()}


def _without_places(scenario: Scenario) -> Scenario:
    """Return the scenario without paths and addresses of this machine; only last parts of paths remain."""
    path = scenario.data.path
    data = scenario.data.model_copy(update={"path": None if path is None else PurePath(path).name})
    output = scenario.output.model_copy(update={"directory": PurePath(scenario.output.directory).name})
    resources = scenario.resources.model_copy(update={"ray_address": ""})
    return scenario.model_copy(update={"data": data, "output": output, "resources": resources})


def _read(run: RunFolder, name: str) -> bytes:
    try:
        return (run.path / name).read_bytes()
    except OSError as error:
        raise RunError(f"{run.name} lacks {name}: {error.strerror}") from error
