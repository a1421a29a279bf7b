"""Counts the traffic by client, for the report and for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shoal.common.errors import TransportError


@dataclass(slots=True)
class WireLoad:
    """One client's traffic.

    Attributes:
        name: of the client; connections: number of connections it opened.
        tasks: sent to it, including repeats after a reconnect; replies: accepted from it.
        bytes_down: payload sent to it; bytes_up: payload accepted from it.
        seconds: from sending a task to its reply, summed; longest: the largest of these.
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
    """Counters for all clients of a server; updated only by its event loop.

    Args:
        names: of the clients; connected: returns the number connected; open_tasks: of tasks waiting.
    """

    def __init__(
        self, names: Sequence[str], connected: Callable[[], int], open_tasks: Callable[[], int]
    ) -> None:
        self.clients = [WireLoad(name) for name in names]
        self._connected = connected
        self._open_tasks = open_tasks
        self.refused = 0

    def answered(self, client: int, size: int, seconds: float) -> None:
        """Count an accepted reply."""
        load = self.clients[client]
        load.replies += 1
        load.bytes_up += size
        load.seconds += seconds
        load.longest = max(load.longest, seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics for Prometheus."""
        yield GaugeMetricFamily("shoal_clients_connected", "Connected clients.", self._connected())
        yield GaugeMetricFamily("shoal_tasks_open", "Tasks without an answer.", self._open_tasks())
        yield CounterMetricFamily("shoal_refused", "Connections and messages refused.", self.refused)
        for field, help_ in (
            ("connections", "Connections opened by a client."),
            ("tasks", "Tasks sent to a client."),
            ("replies", "Replies accepted from a client."),
            ("bytes_down", "Payload bytes sent to a client."),
            ("bytes_up", "Payload bytes accepted from a client."),
            ("seconds", "Seconds from sending tasks to their replies."),
        ):
            family = CounterMetricFamily(f"shoal_client_{field}", help_, labels=["client"])
            for load in self.clients:
                family.add_metric([load.name], getattr(load, field))
            yield family


def serve_metrics(meter: Meter, address: str) -> None:
    """Expose Prometheus metrics over HTTP at "host:port" until the process ends.

    Raises:
        TransportError: the address cannot be used.
    """
    registry = CollectorRegistry()
    registry.register(meter)
    host, _, port = address.rpartition(":")
    try:
        start_http_server(int(port), host, registry)
    except (OSError, ValueError) as error:
        raise TransportError(
            f"cannot expose metrics at {address}: {error}", hint="use a free host:port of this machine"
        ) from error
