"""A stand-in for the process of a node's messages: it answers by the numbers of the process and of the message, or does
what the message's kind says."""

import os
import sys
from multiprocessing.connection import Connection

from flwr.app import ConfigRecord, Message, RecordDict

from fedrec.federation.deployment.packed_message import PackedMessage, Question, Reply
from fedrec.federation.task_identity import identify


def main() -> None:
    line, answered = Connection(int(sys.argv[1])), 0
    while True:
        question: Question = line.recv()
        message, answered = question.message.unpack(), answered + 1
        match message.metadata.message_type.rpartition(".")[2]:
            case "killed":
                os.kill(os.getpid(), 9)
            case "broken":
                sys.exit(1)
        identify(question.run, question.node)
        about = ConfigRecord({"process": os.getpid(), "answered": answered})
        last = message.metadata.message_type == "query.last"
        line.send(Reply(PackedMessage.of(Message(RecordDict({"about": about}), reply_to=message)), last))


if __name__ == "__main__":
    main()
