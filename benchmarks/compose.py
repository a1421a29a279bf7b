"""Runs the services of docker-compose.yml as processes of this machine, each with the very same command.

It stands for Compose where there is no Docker: it follows `depends_on`, and in place of Compose's network it
writes 127.0.0.1 and a free port where a command names a service or a port.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
_PORT: Final = re.compile(r"(?:([\w.]+):)?\b(6379|9443)\b")  # with or without the host before it


class Composed:
    """Services of the compose file, as processes in a folder.

    Args:
        folder: what is /app in a container.
        more: arguments to add to commands of shoal, by the command: {"serve": ["--set", …]}.
    """

    def __init__(self, folder: Path, more: dict[str, list[str]] | None = None) -> None:
        self.services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._more = more or {}
        self._ports = {port: free_port() for port in (6379, 9443)}

    def up(self, *names: str) -> None:
        """Start services, and first what they depend on, as `docker compose up` does."""
        for name in names:
            for other, how in self.services[name].get("depends_on", {}).items():
                if not any(key.partition(".")[0] == other for key in self.running):
                    self.up(other)
                if how["condition"] == "service_completed_successfully":
                    self.wait(other)
                elif how["condition"] == "service_healthy":
                    self._await_health(other)
            for number in range(self.services[name].get("deploy", {}).get("replicas", 1)):
                key = f"{name}.{number}" if number else name
                self.start(name, key)
                if self.services[name].get("entrypoint") == ["ray"]:
                    self._await_ray(key)

    def start(self, name: str, key: str = "") -> None:
        """Start the process of a service, also of one that has ended before."""
        command = self.command(name)
        with (self.folder / f"{key or name}.txt").open("ab") as out:
            self.running[key or name] = subprocess.Popen(
                [*ray_program(self.folder), *command[1:]] if command[0] == "ray" else command,
                cwd=self.folder,
                env=self._environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def command(self, name: str) -> list[str]:
        """Return what a service runs, with the addresses of this machine."""
        service = self.services[name]
        words = [self._here(word) for word in [*service.get("entrypoint", ["shoal"]), *service["command"]]]
        if words[0] == "sh":
            shoal = re.search(r"shoal (\w+)", words[-1])
            return [
                *words[:-1],
                " ".join([words[-1].strip(), *self._more.get(shoal[1] if shoal else "", [])]),
            ]
        return [*words, *self._more.get(words[1], [])]

    def wait(self, name: str, timeout: float = 300.0) -> None:
        """Wait for a service's end.

        Raises:
            RuntimeError: it ended badly; the text is what it said.
        """
        if self.running[name].wait(timeout):
            raise RuntimeError(f"{name} ended badly:\n{self.said(name)}")

    def kill(self, name: str) -> None:
        """End a service at once, as `kill -9` does."""
        os.killpg(self.running[name].pid, signal.SIGKILL)
        self.running[name].wait()

    def said(self, name: str) -> str:
        """Return what a service has printed."""
        return (self.folder / f"{name}.txt").read_text()

    def close(self) -> None:
        """End all that still runs, and what it has started."""
        for process in reversed(self.running.values()):
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait()

    def _here(self, word: str) -> str:
        if word in self.services and word != "shoal":
            return "127.0.0.1"

        def address(found: re.Match[str]) -> str:
            port = self._ports[int(found[2])]
            return f"127.0.0.1:{port}" if found[1] else str(port)

        return _PORT.sub(address, word)

    def _await_ray(self, name: str) -> None:
        """Wait for a node of Ray: two that start at once on one machine get in each other's way."""
        end = time.monotonic() + 60
        while "Ray runtime started" not in self.said(name):
            if time.monotonic() > end or self.running[name].poll() is not None:
                raise RuntimeError(f"{name} does not start:\n{self.said(name)}")
            time.sleep(0.1)

    def _await_health(self, name: str) -> None:
        check = self.services[name]["healthcheck"]
        test = [self._here(word).replace("localhost", "127.0.0.1") for word in check["test"][1:]]
        for _ in range(check["retries"]):
            found = subprocess.run(
                test,
                cwd=self.folder,
                env=self._environment(),
                capture_output=True,
                check=False,
            )
            if not found.returncode:
                return
            time.sleep(float(check["interval"].removesuffix("s")))
        raise RuntimeError(f"{name} is not healthy:\n{self.said(name)}")

    def _environment(self) -> dict[str, str]:
        return environment(PYTHONPATH=str(ROOT), RAY_USAGE_STATS_ENABLED="0", **SOON)


# Nodes on one machine share the folder of the code that workers import: now and then one writes it anew
# while a worker of another starts in it, and dies. Ray notices after a minute by default.
SOON = {"RAY_worker_register_timeout_seconds": "15"}


def environment(**more: str) -> dict[str, str]:
    """Return our variables with more, and this interpreter's programs first in PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path} | more


def ray_program(folder: Path) -> list[str]:
    """Return `ray`, by a path without a space: with one, parts of a node do not start (Ray 2.55).

    Args:
        folder: without a space in its path; a link to this environment is made in it.
    """
    link = folder / "environment"
    if not link.exists():
        link.symlink_to(sys.prefix)
    return [str(link / "bin" / "python"), "-m", "ray.scripts.scripts"]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
