"""Documents of the bundle: data sheet, privacy statement, audit root, and how to check the bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shoal.common.audit.check import Chain
from shoal.simulations.handover.archive import CHECKSUMS, PUBLIC_KEY, SIGNATURE
from shoal.simulations.report import sentences
from shoal.simulations.report.data_view import column_cells
from shoal.simulations.report.facts import Facts, SentMessages
from shoal.simulations.report.markdown import document, table
from shoal.simulations.results.text import NONE, count, size

AUDIT_ROOT: Final = "AUDIT_ROOT.txt"
_MOST_LABELS: Final = 20  # columns of the table of sites
VERIFY_COMMAND: Final = (
    f"openssl pkeyutl -verify -pubin -inkey {PUBLIC_KEY} -rawin -in {CHECKSUMS} -sigfile {SIGNATURE}"
)


def data_sheet(facts: Facts) -> str:
    """Return DATA_SHEET.md: what each site reported about its rows; nothing that it withheld."""
    too_few = f"<{facts.scenario.preprocessing.min_count}"
    clients: Sequence[Mapping[str, Any]] = facts.overview.get("clients") or []
    columns: Sequence[Mapping[str, Any]] = facts.overview.get("columns") or []
    labels = list(dict.fromkeys(name for client in clients for name in client.get("labels") or {}))
    shown = labels[:_MOST_LABELS]
    lines = ["# Data sheet", "", sentences.data_of_run(facts), "", sentences.disclosure_rule(facts), ""]
    lines += [f'"{too_few}" marks a count of too few rows, {NONE} a value that a site did not report.', ""]
    lines += ["## By site", ""]
    lines += table(
        ("site", "rows", "training rows", *shown), (_site(client, shown, too_few) for client in clients)
    )
    if len(labels) > len(shown):
        lines += ["", f"{count(len(labels) - len(shown))} more classes are not in this table."]
    lines += ["", "## By column, over all sites", ""]
    lines += table(
        ("column", "kind", "missing", "mean", "standard deviation", "categories"), map(column_cells, columns)
    )
    # The overview's notes on sites that were left out are not exported: they count few rows.
    return document(lines)


def _site(client: Mapping[str, Any], labels: Sequence[str], too_few: str) -> list[str]:
    of_label = client.get("labels") or {}
    counts = [
        too_few if name in of_label and of_label[name] is None else count(of_label.get(name))
        for name in labels
    ]
    return [str(client["name"]), count(client.get("rows")), count(client.get("train_rows")), *counts]


def privacy_statement(facts: Facts) -> str:
    """Return PRIVACY.md: what each site sent, and how it was protected."""
    source = (
        "Counted from the server's audit log, which contains every message."
        if facts.logged
        else "Counted from the rounds: training and evaluation. Sites also sent statistics and results of "
        "the final test, which are not in these counts."
    )
    lines = [
        "# Privacy statement",
        "",
        sentences.where_rows_are(facts),
        "",
        sentences.disclosure_rule(facts),
        "",
    ]
    lines += ["## How it was protected", ""]
    measures = (
        sentences.privacy,
        sentences.secure_aggregation,
        sentences.transmission,
        sentences.authentication,
    )
    lines += [f"- {measure(facts)}" for measure in measures]
    if facts.cohorts_are_secret:
        lines += [
            "",
            "Epsilon counts on nobody knowing which clients took part in which round: the tables of rounds "
            "and clients are not in this bundle.",
        ]
    lines += ["", "## What each site sent", "", source, ""]
    rows = sorted(facts.sent, key=lambda row: (row.site, row.kind))
    if facts.cohorts_are_secret:
        rows = _over_all_sites(rows)
    lines += table(
        ("site", "kind", "messages", "bytes"),
        (
            [row.site, row.kind, count(row.messages), f"{count(row.bytes)} ({size(row.bytes)})"]
            for row in rows
        ),
    )
    return document(lines)


def _over_all_sites(rows: Sequence[SentMessages]) -> list[SentMessages]:
    kinds = list(dict.fromkeys(row.kind for row in rows))
    found = {kind: [row for row in rows if row.kind == kind] for kind in kinds}
    return [
        SentMessages("all sites", kind, sum(r.messages for r in same), sum(r.bytes for r in same))
        for kind, same in found.items()
    ]


def privacy_events(facts: Facts) -> str | None:
    """Return PRIVACY.json: the guarantee, and each charge from which anybody can compute epsilon again.

    `None` without differential privacy. There are no events where each client has its own (unit "record").
    """
    guarantee: Mapping[str, Any] = facts.summary.get("privacy") or {}
    if not guarantee:
        return None
    wanted = ("unit", "member", "epsilon", "delta", "accountant", "neighbours", "against", "events")
    return json.dumps({name: guarantee.get(name) for name in wanted}, indent=2, ensure_ascii=False) + "\n"


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
    lines = ["# How to check this bundle", "", "Unpacked, with standard Linux tools:", "", "```"]
    lines += [f"sha256sum --check --strict {CHECKSUMS}", *([VERIFY_COMMAND] if signed else []), "```", ""]
    lines += ["As a zip, with shoal:", "", "```"]
    lines += [
        "shoal export --verify BUNDLE.zip" + (" --public-key operator.key.pub" if signed else ""),
        "```",
        "",
    ]
    if signed:
        lines += [
            f"The signature is Ed25519 (RFC 8032) over {CHECKSUMS}; it needs openssl 3. {PUBLIC_KEY} came "
            "with the bundle, so on its own it only shows that all files belong together. Get the operator's "
            "public key, or its fingerprint, by another channel, and compare. This command prints the "
            "fingerprint:",
            "",
            "```",
            f"openssl pkey -pubin -in {PUBLIC_KEY} -outform DER | sha256sum",
            "```",
        ]
    else:
        lines += ["This bundle is not signed: the checksums detect damage, not forgery."]
    if logged:
        lines += [
            "",
            f"{AUDIT_ROOT} contains the root hash of the server's audit log. To check the log against it:",
            "",
            "```",
            "shoal audit verify audit.jsonl --root ROOT",
            "```",
        ]
    return "\n".join(lines) + "\n"
