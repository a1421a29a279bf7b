"""`RunFolder`: the folder of one run. All tables are derived from events.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from shoal.common import errors
from shoal.common.config import Scenario
from shoal.common.config.file import dump_toml, load_scenario
from shoal.common.events import ClientRow, RoundRow, SiteRow
from shoal.common.journal import Follower, Journal, make_folder, now, plain, write_atomically
from shoal.simulations.results import rows as as_rows
from shoal.simulations.results.environment import describe
from shoal.simulations.results.replay import Replay
from shoal.simulations.results.sites import models, over_sites, tested_metrics
from shoal.simulations.results.text import round_line

if TYPE_CHECKING:
    import pyarrow as pa

SERVED = "clients.json"  # in the folder of a pilot: the names of its clients

EndStatus = Literal["finished", "stopped early", "interrupted", "failed"]
Status = Literal["finished", "stopped early", "interrupted", "failed", "running", "killed"]


class RunFolder:
    """A run's folder. It is an `Observer`: each event is on disk when the call returns.

    Use `create` or `open` to get one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = Journal(path / "events.jsonl")
        self._replay = Replay(self.follow())
        self._clients: tuple[list[int], pa.Table] | None = None

    @classmethod
    def create(cls, scenario: Scenario) -> RunFolder:
        """Create the folder `<output.directory>/<name>-<UTC time>` with config.toml and environment.json."""
        directory = Path(scenario.output.directory).expanduser()
        run = cls(_new_folder(directory, scenario.name))
        run._scenario = scenario
        write_atomically(run.path / "config.toml", dump_toml(scenario))
        environment = describe(scenario.seed)
        write_atomically(run.path / "environment.json", _pretty(environment))
        run._journal.append("start", {"name": scenario.name, "seed": scenario.seed}, sync=True)
        return run

    def resume(self) -> None:
        """Record that the run is resumed, with its current environment.

        Raises:
            RunError: another process is writing to the folder.
        """
        self._journal.append("resume", {"environment": describe(self.scenario().seed)}, sync=True)

    def resolve_execution_mode(self, mode: Literal["stacked", "sequential"]) -> None:
        """Write the execution mode chosen by autotune into config.toml, so that a rerun uses it too."""
        resources = self.scenario().resources.model_copy(update={"execution_mode": mode})
        self._scenario = self.scenario().model_copy(update={"resources": resources})
        write_atomically(self.path / "config.toml", dump_toml(self._scenario))

    @classmethod
    def open(cls, path_or_name: str | Path, directory: str | Path = "runs") -> RunFolder:
        """Open the run at a path, the one of that name in `directory`, or the latest there if the name is "".

        Raises:
            RunError: there is no such run; the message names the nearest.
        """
        name = Path(path_or_name).name
        for path in (Path(path_or_name).expanduser(), Path(directory) / path_or_name) if name else ():
            if (path / "events.jsonl").is_file():
                return cls(path)
        runs = list_folders(directory)
        if runs and not name:
            return runs[0]
        known = [run.name for run in runs]
        if not known:
            message = f'there is no run "{name}": {directory} contains no runs'
            raise errors.RunError(message, hint="`shoal run SCENARIO` creates one.")
        raise errors.RunError(errors.unknown_name("run", name, known))

    @property
    def name(self) -> str:
        """The folder's name, unique in its directory."""
        return self.path.resolve().name

    # -- written by the run ---------------------------------------------------------------------

    def on_message(self, text: str) -> None:
        """Record a step outside the rounds."""
        self._journal.append("message", {"text": text}, sync=False)
        self._log(text)

    def on_round(self, row: RoundRow, clients: Sequence[ClientRow]) -> None:
        """Record a round and its messages as one line, so that both are written or neither."""
        content = {"row": row, "clients": as_rows.clients_to_columns(clients)}
        self._journal.append("round", content, sync=True)
        self._log(round_line(row, self.scenario()))
        for client in clients:
            if client.error:
                self._log(f"round {client.round}: {client.phase} failed at {client.name}: {client.error}")

    def on_sites(self, rows: Sequence[SiteRow]) -> None:
        """Record the final test."""
        self._journal.append("sites", {"rows": list(rows)}, sync=True)
        self._log(f"tested {len(rows)} client{'s' if len(rows) != 1 else ''}")

    def write_overview(self, overview: Mapping[str, object]) -> None:
        """Write overview.json: the clients' data as counts and rates only."""
        write_atomically(self.path / "overview.json", _pretty(overview))

    def write_leakage(self, content: Mapping[str, object]) -> None:
        """Write leakage.json: results of attacks on the finished run, as numbers only."""
        write_atomically(self.path / "leakage.json", _pretty(content))

    def finish(self, status: EndStatus, summary: Mapping[str, object]) -> None:
        """End the run: write the tables and summary.json, and release the folder."""
        self._journal.append("end", {"status": status}, sync=True)
        self._log(f"{status}")
        self._journal.close()
        self.derive()
        write_atomically(self.path / "summary.json", _pretty({**self._summary(status), **summary}))

    def close(self) -> None:
        """Release the folder without an end; the run then counts as killed."""
        self._journal.close()

    def _log(self, text: str) -> None:
        with (self.path / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{now()} {text}\n")

    # -- derived --------------------------------------------------------------------------------

    def derive(self) -> None:
        """Write rounds.parquet, clients.parquet and sites.parquet from events.jsonl."""
        import pyarrow as pa
        from pyarrow import parquet

        sites = as_rows.site_table(self.sites())
        for name, table in (("rounds", self.rounds()), ("clients", self.clients()), ("sites", sites)):
            sink = pa.BufferOutputStream()
            parquet.write_table(table, sink, compression="zstd")
            write_atomically(self.path / f"{name}.parquet", sink.getvalue().to_pybytes())

    def _summary(self, status: EndStatus) -> dict[str, object]:
        rounds = self.round_rows()
        best = [row for row in rounds if row.best]
        sites = self.sites()
        across = {
            model: {
                metric: asdict(found)
                for metric in tested_metrics(sites)
                if (found := over_sites(sites, model, metric))
            }
            for model in models(sites)
        }
        return {
            "status": status,
            "finished": now(),
            "rounds": max((row.round for row in rounds), default=0),
            "best_round": best[-1].round if best else None,
            "best_metrics": dict(best[-1].metrics) if best else {},
            "seconds": sum(row.seconds for row in rounds),
            "bytes_up": sum(row.bytes_up for row in rounds),
            "bytes_down": sum(row.bytes_down for row in rounds),
            "over_sites": across,
        }

    # -- read -----------------------------------------------------------------------------------

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield all events so far, oldest first."""
        return self._journal.read()

    def follow(self) -> Follower:
        """Return a reader of the events so far, and then of those that come, each read once."""
        return self._journal.follow()

    def round_rows(self) -> list[RoundRow]:
        """Return the rounds in order."""
        return [found.row for found in self._replay.update().rounds]

    def client_rows(self) -> list[ClientRow]:
        """Return the messages, round after round; `clients` needs far less memory."""
        rounds = self._client_columns(self._round_positions())
        return [row for columns in rounds for row in as_rows.clients_from_columns(columns)]

    def rounds(self) -> pa.Table:
        """Return the table of rounds, as in rounds.parquet."""
        return as_rows.round_table(self.round_rows())

    def clients(self) -> pa.Table:
        """Return the table of messages to clients, as in clients.parquet."""
        positions = self._round_positions()
        if self._clients is None or self._clients[0] != positions:
            self._clients = positions, as_rows.client_table(self._client_columns(positions))
        return self._clients[1]

    def _round_positions(self) -> list[int]:
        return [found.position for found in self._replay.update().rounds]

    def _client_columns(self, positions: Sequence[int]) -> Iterator[Mapping[str, Sequence[Any]]]:
        return (event["clients"] for event in self._journal.read_at(positions))

    def sites(self) -> list[SiteRow]:
        """Return the final test of each client; empty if it has not taken place."""
        return list(self._replay.update().sites)

    def messages(self) -> list[tuple[str, str]]:
        """Return (UTC time, text) of each step outside rounds."""
        return list(self._replay.update().messages)

    def scenario(self) -> Scenario:
        """Return the scenario as resolved for this run."""
        return self._scenario

    def environment(self) -> dict[str, Any]:
        """Return the environment of the run; empty if the file is missing."""
        return self._json("environment.json")

    def overview(self) -> dict[str, Any]:
        """Return the overview of the clients' data; empty if it was not written."""
        return self._json("overview.json")

    def leakage(self) -> dict[str, Any]:
        """Return the results of attacks on the run; empty if there were none."""
        return self._json("leakage.json")

    def summary(self) -> dict[str, Any]:
        """Return the content of summary.json; empty before the end of the run."""
        return self._json("summary.json")

    def status(self) -> Status:
        """Return how the run ended; "running" or "killed" if no end was recorded."""
        end = self._replay.update().end
        if end:
            return cast("EndStatus", end)
        return "running" if self._journal.is_being_written() else "killed"

    @cached_property
    def _scenario(self) -> Scenario:
        return load_scenario(self.path / "config.toml")

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise errors.RunError(f"cannot read {path}: {error}") from error
        return content


def list_folders(directory: str | Path = "runs") -> list[RunFolder]:
    """Return the runs in a directory, newest first; empty if there is no such directory."""
    found = [RunFolder(path.parent) for path in Path(directory).glob("*/events.jsonl")]
    return sorted(found, key=lambda run: (run.path / "events.jsonl").stat().st_mtime_ns, reverse=True)


def _new_folder(directory: Path, name: str) -> Path:
    stamp = f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    attempt = 1
    while True:
        path = directory / (stamp if attempt == 1 else f"{stamp}-{attempt}")
        try:
            make_folder(path)
        except FileExistsError as error:
            if not path.is_dir():
                raise errors.RunError(f"cannot create the folder {path}: {error.strerror}") from error
            attempt += 1
        except OSError as error:
            raise errors.RunError(
                f"cannot create the folder {path}: {error.strerror or error}",
                hint="Choose another folder: --set output.directory=FOLDER",
            ) from error
        else:
            return path


def _pretty(content: Mapping[str, object]) -> str:
    return json.dumps(plain(content), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
