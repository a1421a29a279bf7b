"""The command that simulates the time of a federation of devices, without training: timeline."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.common.cli_options import ScenarioArgument, SetOption
from shoal.common.errors import ConfigError, unknown_name
from shoal.simulations.cli.options import app
from shoal.simulations.cli.running import load_valid

if TYPE_CHECKING:
    from shoal.simulations.devices.policy import ClockPolicy
    from shoal.simulations.devices.summary import Summary

_POLICIES = ("sync", "deadline", "buffered")


@app.command()
def timeline(
    scenario: ScenarioArgument,
    devices: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Population: phones-2018-wifi, phones-2021-4g5g, wearables, iot-gateways, clinics, uniform; "
            '"A:3, B:1" for a mixture; a CSV or Parquet file; or package.module:function.',
        ),
    ] = "phones-2018-wifi",
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Devices; default: the scenario's clients.")
    ] = None,
    policies: Annotated[
        str, typer.Option(metavar="P,…", help="Policies to compare: sync, deadline, buffered.")
    ] = ",".join(_POLICIES),
    rounds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Rounds; default: training.rounds.")
    ] = None,
    clients: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Replies in a round; default: strategy.clients_per_round, or 100."
        ),
    ] = None,
    over_selection: Annotated[
        float, typer.Option(min=1, metavar="X", help="Ask this many times as many devices (sync, deadline).")
    ] = 1.3,
    deadline: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="End of a round; default: twice the median job."),
    ] = None,
    buffer: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Replies in a version (buffered); default: a tenth."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Devices at work (buffered); default: as many as sync asks."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write each timeline there, as Parquet and as a Chrome trace."),
    ] = None,
    set_: SetOption = None,
) -> None:
    """Show how long a federation of devices takes, what it costs, and who takes part; without any training.

    All policies get the same number of replies: rounds times clients.

    \b
      shoal timeline digits --devices phones-2018-wifi --count 100000 --clients 100 --rounds 50
      shoal timeline my.toml --devices "clinics:1, iot-gateways:4" --policies sync,buffered --out timelines
    """
    chosen = _chosen(policies)
    loaded = load_valid(scenario, set_)

    import numpy as np

    from shoal.simulations import datasets
    from shoal.simulations.console import make_console
    from shoal.simulations.devices.jobs import durations
    from shoal.simulations.devices.policy import ClockPolicy
    from shoal.simulations.devices.populations import load_devices
    from shoal.simulations.devices.summary import as_tables, summarise, write_parquet, write_trace
    from shoal.simulations.devices.timeline import simulate
    from shoal.simulations.devices.workload import workload

    population = datasets.load_population(loaded)
    number = len(population) if count is None else count
    found = load_devices(devices, number, loaded.seed)
    load = workload(loaded, population, number)
    wanted = min(number, clients or loaded.strategy.clients_per_round or 100)
    every = np.arange(number)
    usual = float(np.median(durations(found, load.work, loaded.seed, every, every).whole))
    total, size = rounds or loaded.training.rounds, buffer or max(1, wanted // 10)
    least = loaded.server.min_success
    asked = min(number, math.ceil(wanted * over_selection))
    made: dict[str, ClockPolicy] = {
        "sync": ClockPolicy("sync", wanted, over_selection, min_success=least),
        "deadline": ClockPolicy("deadline", wanted, over_selection, deadline or 2 * usual, least),
        "buffered": ClockPolicy("buffered", size, concurrency=concurrency or asked),
    }
    typer.echo(load.describe(usual))
    summaries: dict[str, Summary] = {}
    for name in chosen:
        versions = max(1, total * wanted // size) if name == "buffered" else total
        result = simulate(found, load.work, made[name], versions, loaded.seed)
        summaries[name] = summarise(result, found)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_parquet(result, found, out / f"{name}.parquet")
            write_trace(result, found, out / f"{name}-trace.json")
    console = make_console()
    for table in as_tables(summaries):
        console.print(table)
    if found.source:
        typer.echo(f"Links: {found.source}; docs/edge.md has the sources of all numbers.")
    if out is not None:
        typer.echo(f"Timelines: {out}")


def _chosen(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in _POLICIES:
            raise ConfigError(f"--policies: {unknown_name('policy', name, _POLICIES)}")
    if not names:
        raise ConfigError(f"--policies: expected some of {', '.join(_POLICIES)}")
    return names
