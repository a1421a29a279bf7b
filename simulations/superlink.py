"""The same apps on Flower's own deployment: `flwr run` with a SuperLink and SuperNodes.

`[tool.flwr.app]` in pyproject.toml names them; docs/transport.md has the commands. The node config of a
SuperNode gives its name and the location of its rows; the server asks each node for its name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from shoal.clients.app import make_client_app
from shoal.clients.pilot.site_data import SitePopulation, load_site, read_schema
from shoal.clients.runtime import ClientRuntime
from shoal.common.config import Scenario
from shoal.common.config.cross_checks import pilot_problems
from shoal.common.config.file import load_scenario
from shoal.common.environment import worker_environment
from shoal.common.errors import ConfigError, TransportError
from shoal.common.flower_shim import client_error, number_message
from shoal.common.printable import printable
from shoal.common.privacy.mechanisms import mechanism_of
from shoal.common.profiling import span
from shoal.common.sites import Sites
from shoal.server.audit_grid import AuditGrid
from shoal.server.cohort_grid import CohortGrid
from shoal.server.pilot.meter import WireLoad
from shoal.simulations.pilot_server import RemotePopulation, serve

_WHO: Final = "query.who"
_ARRIVAL_S: Final = 120.0


class SuperLinkGrid(CohortGrid):
    """A Grid over a SuperLink's Grid, with the node ids that the sites have in a simulation."""

    def __init__(self, grid: Grid, sites: Sites, nodes: Sequence[int]) -> None:
        """Create a Grid.

        Args:
            grid: of the SuperLink; sites: of this run; nodes: the SuperLink's node ids, by client.
        """
        super().__init__(grid, sites.node_ids)
        self._sites = sites
        self._nodes = nodes

    def traffic(self) -> list[WireLoad]:
        """Return nothing: the SuperLink does not report traffic."""
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages and return their replies in ascending order of node id."""
        asked = {self._nodes[self._sites.client(m.metadata.dst_node_id)]: m for m in messages}
        sent = []
        for node, message in asked.items():
            number_message(message)
            meta = message.metadata
            sent.append(Message(message.content, node, meta.message_type, group_id=meta.group_id))
        with span("wait"):
            found = list(self._grid.send_and_receive(sent, timeout=timeout))
        replies = []
        for reply in found:
            ours = asked[reply.metadata.src_node_id]
            content = (
                client_error(printable(reply.error.reason or "no reason given"))
                if reply.has_error()
                else reply.content
            )
            replies.append(Message(content, reply_to=ours))
            number_message(replies[-1])
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)


def main(grid: Grid, context: Context) -> None:
    """Run the scenario of the run config over the SuperNodes."""
    config = context.run_config
    scenario = _scenario(str(config["scenario"]), str(config["settings"]))
    output = scenario.output.model_copy(update={"directory": str(config["output"])})
    scenario = scenario.model_copy(update={"output": output})
    names = _names(context)
    nodes = _find(grid, names)
    population = RemotePopulation(read_schema(Path(str(config["schema"]))), names)
    serve(scenario, population, lambda sites, log: SuperLinkGrid(grid, sites, nodes), wrap=AuditGrid)


def _find(grid: Grid, names: Sequence[str]) -> list[int]:
    """Return the node ids of the sites, by client.

    Raises:
        TransportError: one is missing.
    """
    found: dict[str, int] = {}
    end = time.monotonic() + _ARRIVAL_S
    while set(names) - found.keys():
        if time.monotonic() > end:
            missing = ", ".join(sorted(set(names) - found.keys()))
            raise TransportError(
                f"no SuperNode has the name {missing}", hint='set name="…" in its node config'
            )
        new = [node for node in grid.get_node_ids() if node not in found.values()]
        asked = [Message(RecordDict({"config": ConfigRecord()}), node, _WHO) for node in new]
        for reply in grid.send_and_receive(asked, timeout=_ARRIVAL_S) if asked else []:
            if reply.has_content():
                found[str(reply.content.config_records["config"]["name"])] = reply.metadata.src_node_id
        time.sleep(0.2 if asked else 1.0)
    return [found[name] for name in names]


class SiteApp(ClientApp):
    """The ClientApp of a SuperNode, created from its node config for the first message."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer one message."""
        name = str(context.node_config["name"])
        if message.metadata.message_type == _WHO:
            return Message(RecordDict({"config": ConfigRecord({"name": name})}), reply_to=message)
        names = _names(context)
        client = context.node_config["partition-id"] = names.index(name)
        config, node = context.run_config, context.node_config
        app = _app(
            str(config["scenario"]),
            str(config["settings"]),
            Path(str(node["schema"])),
            Path(str(node["data"])),
            client,
            len(names),
        )
        return app(message, context)


@lru_cache(maxsize=1)  # a process that answers several messages reads its rows only once
def _app(scenario: str, settings: str, schema: Path, data: Path, client: int, clients: int) -> ClientApp:
    loaded, agreed = _scenario(scenario, settings), read_schema(schema)
    os.environ.update(worker_environment(loaded.resources.threads_per_worker))
    population = SitePopulation(agreed, load_site(data, agreed, loaded), client, clients)
    return make_client_app(ClientRuntime(loaded, population, "system"))


def _scenario(name: str, settings: str) -> Scenario:
    overrides = [setting.strip() for setting in settings.split(";") if setting.strip()]
    loaded = load_scenario(name, overrides)
    if problems := [*pilot_problems(loaded), *_kept_by_nobody(loaded)]:
        raise ConfigError(problems)
    return loaded


def _kept_by_nobody(scenario: Scenario) -> list[str]:
    """Return the settings that guarantee something against the server, which no site can keep here."""
    settings = {
        f'privacy.unit = "{scenario.privacy.unit}"': mechanism_of(scenario.privacy).against_server,
        "secure.aggregation = true": scenario.secure.aggregation,
    }
    return [
        f"{setting}: under `flwr run`, whoever submits the run chooses the settings and the code of every "
        "site, so it protects nobody against the server; use `shoal serve` and `shoal client`"
        for setting, is_set in settings.items()
        if is_set
    ]


def _names(context: Context) -> list[str]:
    return [name.strip() for name in str(context.run_config["clients"]).split(",")]


server_app = ServerApp()
server_app.main()(main)
client_app = SiteApp()
