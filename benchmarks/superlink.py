"""Flower's own deployment on loopback: a SuperLink and SuperNodes with TLS and node authentication."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.compose import environment, free_port
from shoal.common.certificates import issue, make_authority

_CONNECTION = "here"


class SuperLink:
    """The processes of a deployment, in a folder of its own.

    Args:
        folder: gets keys, logs and Flower's state.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self._address = f"127.0.0.1:{free_port()}"
        self._keys = folder / "keys"
        make_authority(self._keys)
        issue(self._keys, "server", hosts=["127.0.0.1"])
        home = folder / "flwr"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{_CONNECTION}"\n\n[superlink.{_CONNECTION}]\n'
            f'address = "{self._address}"\nroot-certificates = "{self._keys / "ca.crt"}"\n'
        )

    def up(self, nodes: Mapping[str, str]) -> None:
        """Start a SuperLink and SuperNodes.

        Args:
            nodes: name → node config, as `flower-supernode` takes it.

        Raises:
            RuntimeError: one does not come up.
        """
        host, _, port = self._address.rpartition(":")
        tls = [
            "--ssl-certfile",
            str(self._keys / "server.crt"),
            "--ssl-keyfile",
            str(self._keys / "server.key"),
        ]
        self._start(
            "link",
            [
                "flower-superlink",
                "--host",
                host,
                "--port",
                port,
                "--ssl-ca-certfile",
                str(self._ca),
                *tls,
                "--enable-supernode-auth",
                "--disable-runtime-dependency-installation",
            ],
        )
        for name, config in nodes.items():
            self._make_key(name)
            self._register(name)
            self._start(
                name,
                [
                    "flower-supernode",
                    "--root-certificates",
                    str(self._ca),
                    "--superlink",
                    self._address,
                    "--port",
                    str(free_port()),
                    "--auth-supernode-private-key",
                    str(self._keys / name),
                    "--node-config",
                    config,
                ],
            )

    def run(self, app: Path, config: str, timeout_s: float = 600) -> str:
        """Run an app with `flwr run` and return what it and the SuperLink said.

        Args:
            app: its folder; config: overrides of its run config; timeout_s: for all of it.
        """
        command = ["flwr", "run", str(app), _CONNECTION, "--run-config", config, "--stream"]
        done = self._call(command, timeout_s)
        return done.stdout + (self.folder / "link.txt").read_text()

    def close(self) -> None:
        """End all processes, and those that they have started in groups of their own."""
        while groups := self._groups():  # one may be starting another
            for group in groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            for process in self._running:
                process.wait()
            time.sleep(0.1)

    def _groups(self) -> set[int]:
        """Return the process groups of this deployment."""
        mark, found = f"FLWR_HOME={self.folder / 'flwr'}".encode(), set()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(os.getpgid(int(entry.name)))
        return found

    @property
    def _ca(self) -> Path:
        return self._keys / "ca.crt"

    def _make_key(self, name: str) -> None:
        key = ec.generate_private_key(ec.SECP384R1())
        (self._keys / name).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        (self._keys / f"{name}.pub").write_bytes(public)

    def _register(self, name: str) -> None:
        """Register a SuperNode's key, again while the SuperLink is not up yet."""
        end = time.monotonic() + 60
        while True:
            command = ["flwr", "supernode", "register", str(self._keys / f"{name}.pub"), _CONNECTION]
            done = self._call(command, 60)
            if "registered successfully" in done.stdout:
                return
            if time.monotonic() > end:
                raise RuntimeError(f"{name} cannot be registered: {done.stdout}{done.stderr}")
            time.sleep(0.5)

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.txt").open("ab") as out:
            self._running.append(
                subprocess.Popen(
                    self._found(command),
                    cwd=self.folder,
                    env=self._environment(),
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            )

    def _call(self, command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._found(command),
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def _found(self, command: list[str]) -> list[str]:
        program = shutil.which(command[0], path=str(Path(sys.executable).parent))
        if program is None:
            raise RuntimeError(f"{command[0]} is not installed")
        return [program, *command[1:]]

    def _environment(self) -> dict[str, str]:
        return environment(
            FLWR_HOME=str(self.folder / "flwr"),
            FLWR_TELEMETRY_ENABLED="0",
            FLWR_DISABLE_UPDATE_CHECK="1",
            TF_CPP_MIN_LOG_LEVEL="3",
        )
