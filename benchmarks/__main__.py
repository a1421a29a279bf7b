"""`python -m benchmarks NAME...`: runs benchmarks by name; each writes its table into benchmarks/results/."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks import results

# The module of each benchmark, in the order in which `all` runs them; imported when it is asked for.
BENCHMARKS: Final = {
    "floor": "beside the bare loop of the same optimisation steps",
    "peers": "beside stock Flower, pfl-research and FedJAX",
    "transport": "over TLS, beside Flower's own deployment",
    "secure": "secure aggregation: masks, and whole sessions with clients lost",
    "audit": "with and without an audit log",
    "state": "what it costs to keep a state a client on disk",
    "growth": "over more clients, workers and rounds",
    "private": "with and without differential privacy",
    "price": "what each privacy budget costs the sites of two scenarios",
}


def main() -> None:
    """Run the benchmarks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    told = "; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items())
    parser.add_argument("names", nargs="+", choices=(*BENCHMARKS, "all"), metavar="NAME", help=f"{told}; all")
    parser.add_argument(
        "--quick", action="store_true", help="few rounds of small tasks, to see that it works"
    )
    given = parser.parse_args()
    # As an exception it reaches the code that ends children, which would otherwise go on without us.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if given.quick:  # figures that nobody should read
        results.FOLDER = Path(tempfile.mkdtemp(prefix="shoal-benchmarks-"))
    for name in BENCHMARKS if "all" in given.names else given.names:
        started = time.perf_counter()
        importlib.import_module(f"benchmarks.{name}").main(quick=given.quick)
        print(f"{name}: {time.perf_counter() - started:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
