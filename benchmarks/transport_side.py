"""Clients of the transport benchmark, several in a process: each adds one to the weights that it gets."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from flwr.app import MetricRecord, RecordDict

from shoal.clients.pilot.grpc_client import TransportClient
from shoal.clients.worker import Answer, Job
from shoal.common.certificates import client_credentials
from shoal.common.flower_shim import identify_process
from shoal.common.weights import record_to_weights, weights_to_record


class AddsOne:
    """What stands for training: it costs next to nothing."""

    def run(self, content: RecordDict, jobs: Sequence[Job]) -> list[Answer]:
        """Answer each job with the weights and one more."""
        weights = weights_to_record([w + 1 for w in record_to_weights(content.array_records["arrays"])])
        told = RecordDict({"arrays": weights, "metrics": MetricRecord({"num-examples": 1})})
        return [Answer(told, "", None, [job.node_id]) for job in jobs]


def main() -> None:
    """Run the clients that the arguments name until the server says goodbye."""
    given = json.loads(sys.argv[1])
    identify_process(1)
    keys = Path(given["keys"])
    clients = [
        TransportClient(
            given["address"],
            client_credentials(keys / "ca.crt", keys / f"{name}.crt", keys / f"{name}.key"),
            lambda welcome: AddsOne(),
            version="benchmark",
        )
        for name in given["names"]
    ]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
