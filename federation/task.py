"""One message at a node, in a process of its own: the installed ClientApp answers it.

Flower's own `flwr-clientapp` unpacks the bundle that came from the server and runs the code in it, beside the node's
histories. This one never unpacks a bundle: it runs the code that the node's owner has installed, and only if the
bundle holds the same. What it needs of Flower's internals is here and in `supernode.py`, for flwr 1.41.
"""

import json
import logging
import os
import sys

from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.supercore.app_utils import start_parent_process_monitor
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from federation import bundle
from federation.client_app import app

OURS = bundle.installed()
"""Read when this process starts, as the code that it runs is: an update meanwhile is for the processes after it."""

logger = logging.getLogger("fedrec")


def reply_to(message: Message, context: Context, content: bytes) -> Message:
    """The installed app's answer to a message, or an error if the bundle (`content`) holds other code."""
    try:
        bundle.refuse_foreign(content, OURS)
        return app(message, context)
    except bundle.ForeignBundle as refusal:
        logger.error("refused a message of run %s: %s", context.run_id, refusal)
        return Message(Error(ErrorCode.INVALID_FAB, str(refusal)), reply_to=message)
    except Exception as error:
        logger.exception("a message of run %s failed", context.run_id)
        return Message(
            Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, f"{type(error).__name__}: {error}"), reply_to=message
        )


def answer(address: str, token: str) -> None:
    """Fetch the message that `token` is for from the SuperNode at `address`, and hand in the answer."""
    client = RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,  # on this machine's loopback
        root_certificates=None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
            RuntimeTokenHttpInterceptor(token),
        ],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
    heartbeat.start()
    context, status, details = None, SubStatus.FAILED, "the process of the message ended early; the node's log says why"
    try:
        message, context, _, fab = pull_task_input(client)
        reply = reply_to(message, context, fab.content)
        push_message(client, reply, context)
        status, details = (
            (SubStatus.FAILED, reply.error.reason or "") if reply.has_error() else (SubStatus.COMPLETED, "")
        )
    finally:
        push_task_output(client, context, status, details)
        heartbeat.stop()
        client.close()


if __name__ == "__main__":
    # The token comes on standard input: other users of the machine can read a command line.
    if task := sys.stdin.readline():
        start_parent_process_monitor(os.getppid())
        answer(**json.loads(task))
