"""What goes over the wire, counted by client while it goes: for the report, and for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shoal.common.errors import TransportError


@dataclass(slots=True)
class WireLoad:
    """One client's share of the traffic.

    Attributes:
        name: of the client; connections: that it has opened.
        tasks: sent to it, again after a break included; replies: that were taken.
        bytes_down: payload sent to it; bytes_up: payload taken from it.
        seconds: from handing out a task to its reply, summed; longest: of these.
    """

    name: str
    connections: int = 0
    tasks: int = 0
    replies: int = 0
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0
    longest: float = 0.0


class Meter(Collector):
    """Counts for all clients of a server; written by its event loop only.

    Args:
        names: of the clients; connected: returns how many are there; open_tasks: how many tasks wait.
    """

    def __init__(
        self, names: Sequence[str], connected: Callable[[], int], open_tasks: Callable[[], int]
    ) -> None:
        self.clients = [WireLoad(name) for name in names]
        self._connected = connected
        self._open_tasks = open_tasks
        self.refused = 0

    def answered(self, client: int, size: int, seconds: float) -> None:
        """Count a reply that was taken."""
        load = self.clients[client]
        load.replies += 1
        load.bytes_up += size
        load.seconds += seconds
        load.longest = max(load.longest, seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield what Prometheus asks for."""
        yield GaugeMetricFamily("shoal_clients_connected", "Clients that are there.", self._connected())
        yield GaugeMetricFamily("shoal_tasks_open", "Tasks without an answer.", self._open_tasks())
        yield CounterMetricFamily("shoal_refused", "Connections and messages refused.", self.refused)
        for field, help_ in (
            ("connections", "Connections that a client has opened."),
            ("tasks", "Tasks sent to a client."),
            ("replies", "Replies taken from a client."),
            ("bytes_down", "Payload bytes sent to a client."),
            ("bytes_up", "Payload bytes taken from a client."),
            ("seconds", "Seconds from handing out tasks to their replies."),
        ):
            family = CounterMetricFamily(f"shoal_client_{field}", help_, labels=["client"])
            for load in self.clients:
                family.add_metric([load.name], getattr(load, field))
            yield family


def serve_metrics(meter: Meter, address: str) -> None:
    """Answer Prometheus over HTTP at "host:port" until the process ends.

    Raises:
        TransportError: the address cannot be had.
    """
    registry = CollectorRegistry()
    registry.register(meter)
    host, _, port = address.rpartition(":")
    try:
        start_http_server(int(port), host, registry)
    except (OSError, ValueError) as error:
        raise TransportError(f"no metrics at {address}: {error}", hint="host:port of this machine") from error
