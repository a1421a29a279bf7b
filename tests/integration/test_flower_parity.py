"""Stock apps with odd messages, in this process and on Ray workers.

What is expected is what was observed with Flower 1.41; its own simulation is not run here.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from users_module import write_module

from shoal.common.errors import ConfigError
from shoal.simulations.run_app import run_app, run_project

APP = """
import sys
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

FOUND = {}
client = ClientApp()
server = ServerApp()


def reply(msg, **values):
    return Message(RecordDict({"c": ConfigRecord(values)}), reply_to=msg)


@client.query()
def query(msg, ctx):
    what = msg.content["c"].get("what", "")
    if what == "none":
        return None
    if what == "text":
        return "a text"
    if what == "raise":
        raise ValueError("no")
    if what == "exit":
        sys.exit(3)
    return reply(msg, partition=int(ctx.node_config["partition-id"]), tag=msg.content["c"].get("tag", 0))


@client.train()
def train(msg, ctx):
    kept = ctx.state["n"] if "n" in ctx.state else ConfigRecord({"n": 0, "all": [0]})
    kept["n"] += 1  # in place: a failed call must leave no trace even so
    kept["all"].append(kept["n"])
    ctx.state["n"] = kept
    if msg.content["c"].get("fail"):
        raise RuntimeError
    return reply(msg, n=kept["n"], all=kept["all"])


def ask(node, kind="query", **values):
    return Message(RecordDict({"c": ConfigRecord(values)}), node, kind)


def shown(replies):
    return ["error" if r.has_error() else {k: r.content["c"][k] for k in r.content["c"]} for r in replies]


@server.main()
def main(grid, context):
    FOUND.clear()
    FOUND["config"] = dict(context.run_config)
    a, b = list(grid.get_node_ids())[:2]
    two = list(grid.send_and_receive([ask(a, tag=1), ask(a, tag=2)]))
    FOUND["two"] = shown(two), len({r.metadata.reply_to_message_id for r in two})
    FOUND["unknown"] = shown(grid.send_and_receive([ask(424242), ask(b)]))
    FOUND["nothing"] = shown(grid.send_and_receive([]))
    for what in ("none", "text", "raise", "exit"):
        FOUND[what] = shown(grid.send_and_receive([ask(a, what=what), ask(b)]))
    FOUND["state"] = [shown(grid.send_and_receive([ask(b, "train", fail=fail)])) for fail in (0, 1, 0)]
    FOUND["trained twice"] = shown(grid.send_and_receive([ask(b, "train"), ask(b, "train")]))
    FOUND["pulled"] = shown(grid.pull_messages(grid.push_messages([ask(a, tag=1), ask(a, tag=2)])))
"""
PROJECT = """
[tool.flwr.app.components]
serverapp = "odd_app:server"
clientapp = "odd_app:client"
[tool.flwr.app.config]
num-server-rounds = 2
[tool.flwr.federations]
default = "here"
[tool.flwr.federations.here]
options.num-supernodes = 2
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_module(tmp_path, monkeypatch, "odd_app", APP)
    return tmp_path


@pytest.mark.parametrize("backend", ["serial", "ray"])
def test_odd_messages_are_answered_as_flower_does(
    place: Path, backend: str, request: pytest.FixtureRequest
) -> None:
    if backend == "ray":
        request.getfixturevalue("ray_session")
    run_app("odd_app:server", "odd_app:client", 2, backend=backend, workers=2)
    found = import_module("odd_app").FOUND
    first, second = ({"partition": 0, "tag": tag} for tag in (1, 2))
    other = {"partition": 1, "tag": 0}
    assert found["two"] == ([first, second], 2)
    assert found["pulled"] == [first, second]
    assert found["unknown"] == [other]
    assert found["nothing"] == []
    for what in ("none", "text", "raise", "exit"):
        assert found[what] == ["error", other], what
    # The second of three calls failed, and left no trace.
    assert found["state"] == [[{"n": 1, "all": [0, 1]}], ["error"], [{"n": 2, "all": [0, 1, 2]}]]
    assert [one["n"] for one in found["trained twice"]] == [3, 4]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_project_names_its_apps_config_and_clients(place: Path, encoding: str) -> None:
    (place / "pyproject.toml").write_text(PROJECT, encoding=encoding)
    run_project(place, 0, backend="serial", run_config=["num-server-rounds=5"])
    assert import_module("odd_app").FOUND["config"] == {"num-server-rounds": 5}


@pytest.mark.parametrize(
    ("text", "given", "told"),
    [
        ("", [], r"app\.components\.serverapp is missing"),
        ("[tool", [], "cannot be read as TOML"),
        (PROJECT, ["num-server-round=5"], 'Did you mean "num-server-rounds"'),
        (PROJECT.partition("[tool.flwr.fed")[0], [], "set --clients N"),
        (PROJECT.replace("odd_app:client", "odd_app:clint"), [], "odd_app:clint"),
    ],
    ids=["nothing", "no TOML", "unknown key", "no clients", "a typo"],
)
def test_what_is_wrong_with_a_project_is_said(place: Path, text: str, given: list[str], told: str) -> None:
    (place / "pyproject.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        run_project(place, 0, backend="serial", run_config=given)


def test_a_folder_without_a_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no pyproject\.toml"):
        run_project(tmp_path, 2)


def test_a_module_that_ends_the_process_is_an_error(place: Path) -> None:
    (place / "script_app.py").write_text("import sys\nsys.exit(3)\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="SystemExit"):
        run_app("script_app:server", "odd_app:client", 2, backend="serial")
