"""The only module that uses Flower names outside its public API.

They are needed because Flower's public API cannot run its apps over a custom Grid. An incompatible minor
version of Flower fails here first: `pyproject.toml` pins it and a test checks it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from logging import WARNING
from uuid import uuid4

from flwr.app import Error, Message
from flwr.common.config import parse_config_args
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.logger import log
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "Run",
    "client_error",
    "identify_process",
    "make_run",
    "number_message",
    "numbered",
    "parse_config_args",
]

FLOWER_MINOR = "1.41"


def make_run(run_id: int) -> Run:
    """Return an empty run description, for `Grid.set_run`."""
    return Run.create_empty(run_id=run_id)


def identify_process(run_id: int, node_id: int = SUPERLINK_NODE_ID) -> None:
    """Set which run this process works for; `Message(...)` raises before that.

    The identity is a class attribute in Flower, so a process serves one run at a time.
    """
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = node_id


def number_message(message: Message) -> str:
    """Give a message a new id, which is usually set by Flower's SuperLink, and return it."""
    message_id = str(uuid4())
    message.metadata.__dict__["_message_id"] = message_id
    return message_id


def numbered(messages: Iterable[Message], nodes: Container[int]) -> list[Message]:
    """Return the messages to existing nodes, each with a new id; others get no reply, as in Flower."""
    found = []
    for message in messages:
        if message.metadata.dst_node_id in nodes:
            number_message(message)
            found.append(message)
        else:
            text = "a message to node %d gets no reply: there is no such node"
            log(WARNING, text, message.metadata.dst_node_id)
    return found


def client_error(reason: str) -> Error:
    """Return the error that a reply carries when the client's handler raised."""
    return Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
