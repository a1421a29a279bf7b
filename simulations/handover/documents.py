"""The bundle's other documents: data sheet, privacy statement, and how to check the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shoal.common.audit.check import Chain
from shoal.simulations.handover.archive import CHECKSUMS, PUBLIC_KEY, SIGNATURE
from shoal.simulations.handover.markdown import table
from shoal.simulations.report import sentences as told
from shoal.simulations.report.data_view import column_cells
from shoal.simulations.report.facts import Facts
from shoal.simulations.results.text import NONE, count, size

AUDIT_ROOT: Final = "AUDIT_ROOT.txt"
_MOST_LABELS: Final = 20  # columns of the table of sites
VERIFY_COMMAND: Final = (
    f"openssl pkeyutl -verify -pubin -inkey {PUBLIC_KEY} -rawin -in {CHECKSUMS} -sigfile {SIGNATURE}"
)


def data_sheet(facts: Facts) -> str:
    """Return DATA_SHEET.md: what each site told of its rows, and not what it held back."""
    few = f"<{facts.scenario.preprocessing.min_count}"
    clients: Sequence[Mapping[str, Any]] = facts.overview.get("clients") or []
    columns: Sequence[Mapping[str, Any]] = facts.overview.get("columns") or []
    labels = list(dict.fromkeys(name for client in clients for name in client.get("labels") or {}))
    shown = labels[:_MOST_LABELS]
    lines = ["# Data sheet", "", told.data_of_run(facts), "", told.disclosure_rule(facts), ""]
    lines += [f'"{few}" marks a count that too few rows stand behind, {NONE} what a site did not tell.', ""]
    lines += ["## By site", ""]
    lines += table(
        ("site", "rows", "training rows", *shown), (_site(client, shown, few) for client in clients)
    )
    if len(labels) > len(shown):
        lines += ["", f"{count(len(labels) - len(shown))} further classes are left out of the table."]
    lines += ["", "## By column, over all sites", ""]
    lines += table(
        ("column", "kind", "missing", "mean", "standard deviation", "categories"), map(column_cells, columns)
    )
    # The overview's notes on sites that were left out stay in the run folder: they count few rows.
    return "\n".join(lines) + "\n"


def _site(client: Mapping[str, Any], labels: Sequence[str], few: str) -> list[str]:
    of_label = client.get("labels") or {}
    counts = [
        few if name in of_label and of_label[name] is None else count(of_label.get(name)) for name in labels
    ]
    return [str(client["name"]), count(client.get("rows")), count(client.get("train_rows")), *counts]


def privacy_statement(facts: Facts) -> str:
    """Return PRIVACY.md: what left each site, and what protected it."""
    told_of = (
        "Counted from the server's audit log, which has every message."
        if facts.logged
        else "Counted from the rounds: training and evaluation. Statistics and the final test left too, and "
        "are not in these counts."
    )
    lines = ["# Privacy statement", "", told.where_rows_are(facts), "", told.disclosure_rule(facts), ""]
    lines += ["## What protected what left", ""]
    measures = (told.privacy, told.secure_aggregation, told.transmission, told.authentication)
    lines += [f"- {measure(facts)}" for measure in measures]
    lines += ["", "## What left each site", "", told_of, ""]
    rows = sorted(facts.left, key=lambda row: (row.site, row.kind))
    lines += table(
        ("site", "asked for", "messages", "bytes"),
        (
            [row.site, row.kind, count(row.messages), f"{count(row.bytes)} ({size(row.bytes)})"]
            for row in rows
        ),
    )
    return "\n".join(lines) + "\n"


def audit_root(chain: Chain) -> str:
    """Return AUDIT_ROOT.txt."""
    return (
        f"root      {chain.root}\n"
        f"entries   {len(chain.entries)}\n"
        f"messages  {len(chain.messages())}\n"
        f"first     {chain.entries[0]['time']}\n"
        f"last      {chain.entries[-1]['time']}\n"
    )


def how_to_verify(*, signed: bool, logged: bool) -> str:
    """Return VERIFY.md."""
    lines = ["# How to check this bundle", "", "Unpacked, with the tools of any Linux:", "", "```"]
    lines += [f"sha256sum --check --strict {CHECKSUMS}", *([VERIFY_COMMAND] if signed else []), "```", ""]
    lines += ["or packed, with shoal:", "", "```"]
    lines += [
        "shoal export --verify BUNDLE.zip" + (" --public-key operator.key.pub" if signed else ""),
        "```",
        "",
    ]
    if signed:
        lines += [
            f"The signature is Ed25519 (RFC 8032) over {CHECKSUMS}; openssl 3 is needed. {PUBLIC_KEY} came "
            "with the bundle, so alone it shows only that all files belong together. Get the operator's "
            "public key, or its fingerprint, by another way, and compare. This prints the fingerprint:",
            "",
            "```",
            f"openssl pkey -pubin -in {PUBLIC_KEY} -outform DER | sha256sum",
            "```",
        ]
    else:
        lines += ["This bundle is not signed: the checksums show damage, not forgery."]
    if logged:
        lines += [
            "",
            f"{AUDIT_ROOT} holds the root of the server's audit log. With the log, and the root from here:",
            "",
            "```",
            "shoal audit verify audit.jsonl --root ROOT",
            "```",
        ]
    return "\n".join(lines) + "\n"
