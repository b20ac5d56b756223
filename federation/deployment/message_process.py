"""The messages to a node, in a process of their own: the installed ClientApp answers them one by one.

Flower's own `flwr-clientapp` unpacks the bundle that came from the server and runs the code in it, beside the node's
histories. This process never unpacks a bundle: it runs the code that the node's owner has installed, and only if the
bundle holds the same. It stays for the next message, so that a node imports the libraries and opens its data once a
run. Its messages come over a socket that only the process that started it has: nothing listens on a port.
"""

import logging
import signal
import sys
from functools import lru_cache
from multiprocessing.connection import Connection

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from fedrec.data.errors import InputError
from fedrec.federation.client_app import app, close_nodes
from fedrec.federation.deployment import app_bundle
from fedrec.federation.deployment.packed_message import PackedMessage, Question, Reply
from fedrec.federation.parcel import unwrap, wrap
from fedrec.federation.task_identity import identify

OURS = app_bundle.installed()
"""Read when this process starts, as the code that it runs is: an update meanwhile is for the processes after it."""

logger = logging.getLogger("fedrec")


@lru_cache(maxsize=1)
def admit(bundle: bytes) -> None:
    """Raise `ForeignBundle` unless a bundle holds the code of this process. One bundle comes with all of a run."""
    app_bundle.refuse_foreign(bundle, OURS)


def reply_to(message: Message, context: Context, bundle: bytes) -> tuple[Message, bool]:
    """Answer a message by the installed app, or by an error if the bundle holds other code.

    Returns the answer, and whether this process should end with it: the process after it runs the code that is
    installed then, and has nothing of a failure.
    """
    try:
        admit(bundle)
        message.content = unwrap(message.content)
        reply = app(message, context)
        if reply.has_content():
            reply.content = wrap(reply.content)
        return reply, False
    except app_bundle.ForeignBundle as refusal:
        logger.error("refused a message of run %s: %s", context.run_id, refusal)
        return Message(Error(ErrorCode.INVALID_FAB, str(refusal)), reply_to=message), True
    except Exception as error:
        logger.exception("a message of run %s failed", context.run_id)
        reason = f"{type(error).__name__}: {error}"
        reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
        return reply, not isinstance(error, InputError)


def answer(question: Question) -> Reply:
    """Answer a question."""
    identify(question.run, question.node)
    context = Context(question.run, question.node, question.node_config, RecordDict(), question.run_config)
    reply, last = reply_to(question.message.unpack(), context, question.bundle)
    return Reply(PackedMessage.of(reply), last)


def serve(line: Connection) -> None:
    """Answer the questions that come over a line, until the other end closes it or an answer is the last one.

    What is open for another run than the question's is closed first.
    """
    run = None
    try:
        while True:
            question: Question = line.recv()
            if question.run != run:
                close_nodes()
                run = question.run
            reply = answer(question)
            line.send(reply)
            if reply.last:
                return
    except (EOFError, ConnectionError):
        return


def main(socket: int) -> None:
    """Answer the questions that come over an inherited socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the node, which ends this process
    serve(Connection(socket))


if __name__ == "__main__":
    main(int(sys.argv[1]))
