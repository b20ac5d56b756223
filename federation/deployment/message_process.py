"""The messages to a node, in a process of their own: the installed ClientApp answers them one by one.

Flower's own `flwr-clientapp` unpacks the bundle that came from the server and runs the code in it, beside the node's
histories. This one never unpacks a bundle: it runs the code that the node's owner has installed, and only if the
bundle holds the same. It also stays for the next message, so that a node imports the libraries and opens its data once
a run. What it needs of Flower's internals is here, for flwr 1.41.
"""

import logging
import math
import os
import sys
import time
from functools import partial
from pathlib import Path

import httpx
from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.app_utils import start_parent_process_monitor
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime import run_clientapp
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from fedrec.federation.client_app import app, close_nodes
from fedrec.federation.deployment import app_bundle
from fedrec.federation.deployment.supernode import LOST

OURS = app_bundle.installed()
"""Read when this process starts, as the code that it runs is: an update meanwhile is for the processes after it."""

APPS = [TaskType.CLIENT_APP, TaskType.AGENT_APP]
"""Every kind of task that a SuperNode makes of a message. All are answered by the installed ClientApp, or refused."""

POLL = 0.25
"""Seconds between two polls for a message: short beside a round, and a node that waits is nearly idle."""
RECEIVE = 180.0
"""Seconds to wait for the parts of a message that the SuperNode has announced. If a run ends in that moment, flwr 1.41
never fetches them, and would have this process wait for 80 minutes."""
IDLE = 600.0
"""Seconds without a message after which a process that has answered one ends, and gives its memory back."""

logger = logging.getLogger("fedrec")

run_clientapp.__dict__["pull_and_inflate_object_from_tree"] = partial(
    pull_and_inflate_object_from_tree, max_time=RECEIVE
)


def acquire(address: str, secret: bytes, patience: float = math.inf) -> str | None:
    """Wait until the SuperNode at `address` has a message, even while it starts, and return the token to fetch it.

    Returns None after `patience` seconds without a message.
    """
    signed = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"})
    client = _client(address, RuntimeVersionHttpInterceptor(component_name="SuperExec"), signed)
    started = time.monotonic()
    try:
        while time.monotonic() - started < patience:
            try:
                if token := client.AcquireTask(AcquireTaskRequest(supported_task_types=APPS)).token:
                    return token
            except httpx.TransportError:
                logger.debug("the SuperNode does not listen")
            time.sleep(POLL)
    finally:
        client.close()
    return None


def reply_to(message: Message, context: Context, content: bytes) -> Message:
    """Answer a message by the installed app, or by an error if the bundle (`content`) holds other code."""
    try:
        app_bundle.refuse_foreign(content, OURS)
        return app(message, context)
    except app_bundle.ForeignBundle as refusal:
        logger.error("refused a message of run %s: %s", context.run_id, refusal)
        return Message(Error(ErrorCode.INVALID_FAB, str(refusal)), reply_to=message)
    except Exception as error:
        logger.exception("a message of run %s failed", context.run_id)
        return Message(
            Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"{type(error).__name__}: {error}"), reply_to=message
        )


def answer(address: str, token: str, last_run: int | None) -> int | None:
    """Fetch the message that `token` is for from the SuperNode at `address`, and hand in the answer.

    What is open for another run than the message's is closed first. Returns the run, or None if the answer is an error.
    """
    names = RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"), RuntimeTokenHttpInterceptor(token)
    client = _client(address, *names, patient=True)
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    context, status, details = None, SubStatus.FAILED, "the process of the message ended early; the node's log says why"
    try:
        message, context, _, fab = pull_task_input(client)
        if context.run_id != last_run:
            close_nodes()
        reply = reply_to(message, context, fab.content)
        push_message(client, reply, context)
        status, details = (
            (SubStatus.FAILED, reply.error.reason or "") if reply.has_error() else (SubStatus.COMPLETED, "")
        )
    finally:
        push_task_output(client, context, status, details)
        heartbeat.stop()
        client.close()
    return None if context is None or reply.has_error() else context.run_id


def _client(address: str, *interceptors: ProtobufClientInterceptor, patient: bool = False) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,  # on this machine's loopback
        root_certificates=None,
        interceptors=interceptors,
        retry_invoker=make_simple_http_retry_invoker() if patient else None,
    )


def main(address: str, secret: Path) -> int:
    """Answer messages until none has come for a while, or one has failed; return the exit status, `LOST` if a message
    has no answer.

    The process after this one starts from what is installed then: code that was updated meanwhile needs no restart.
    """
    start_parent_process_monitor(os.getppid())
    run, patience = None, math.inf
    while token := acquire(address, secret.read_bytes(), patience):
        try:
            run, patience = answer(address, token, run), IDLE
        except Exception:
            logger.exception("a message was not answered")
            return LOST
        if run is None:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
