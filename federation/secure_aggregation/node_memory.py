"""What a node keeps for secure aggregation: its identity, the session under way, and what it has answered for good.

With a file it outlives the process, so that a node that is killed between two messages goes on, and gives away no
share of the other kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

from pydantic import TypeAdapter, ValidationError

from fedrec.data.errors import InputError
from fedrec.data.manifest import KNOWN_NODES, NODE_KEYS
from fedrec.data.storage.atomic_files import replaced_file
from fedrec.data.storage.reading import regular
from fedrec.federation.secure_aggregation.group import STORED, Group
from fedrec.federation.secure_aggregation.node_session import Session
from fedrec.federation.secure_aggregation.signing import draw_identity, identity_of

OWNER_ALONE = 0o600
REMEDY = "restore it; without it the node has a new identity"


@dataclass(frozen=True)
class _Stored:
    __pydantic_config__ = STORED

    identity: bytes = field(default_factory=draw_identity)  # private
    session: Session | None = None
    run: str = ""
    answered: Mapping[str, int] = field(default_factory=dict)  # kind → last round of this run that was revealed


_ADAPTER = TypeAdapter(_Stored)


class NodeMemory:
    """A node's memory, in memory, and in a file if one is given."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._stored = _load(file) if file and file.exists() else None

    def __reduce__(self) -> NoReturn:
        raise TypeError("a node's keys are private: they cannot be pickled, copied to another process or sent")

    @property
    def identity(self) -> bytes:
        """The private key by which the node signs; it is drawn at the first use."""
        if self._stored is None:
            self._keep(_Stored())
        assert self._stored
        return self._stored.identity

    @property
    def public_identity(self) -> bytes:
        """The public key by which other nodes know this one."""
        return identity_of(self.identity)

    @property
    def session(self) -> Session:
        """The session under way. Raises `ValueError` if there is none."""
        if self._stored is None or self._stored.session is None:
            raise ValueError("no session is under way: it has ended, or never began")
        return self._stored.session

    def open_session(self, session: Session) -> None:
        """Begin a session, or go on with the next step of it; a session before it is forgotten.

        Raises `ValueError` if a sum for this question, or a later one of its kind, was revealed before: two sums of
        the same clients with other survivors would tell the difference.
        """
        question = session.question
        answered = self._record.answered if self._record.run == question.run else {}
        if question.round <= answered.get(question.kind, 0):
            raise ValueError(
                f"round {question.round} is asked for after round {answered[question.kind]} was revealed; a sum is "
                "revealed once"
            )
        self._keep(replace(self._record, session=session))

    def end_session(self, repeatable: bool) -> None:
        """Forget the session, and remember that its shares were given, unless its kind of question is repeatable."""
        question, record = self.session.question, replace(self._record, session=None)
        if not repeatable:
            before = record.answered if record.run == question.run else {}
            record = replace(record, run=question.run, answered={**before, question.kind: question.round})
        self._keep(record)

    def check_known(self, group: Group) -> None:
        """Raise `ValueError` if the node's owner has a list of known nodes, and a node of the group is not on it."""
        known = self._known_nodes()
        if known is None:
            return
        for member in group.members:
            if member.identity != self.public_identity and member.identity.hex() not in known:
                raise ValueError(f"node {member.identity.hex()[:16]} is not in this node's {KNOWN_NODES}")

    def _known_nodes(self) -> frozenset[str] | None:
        """Read the public keys of the known nodes, one at the beginning of each line; None if there is no list."""
        if self._file is None or not (path := self._file.parent / KNOWN_NODES).exists():
            return None
        lines = (line.split("#")[0].split() for line in path.read_text("utf-8").splitlines())
        return frozenset(words[0].lower() for words in lines if words)

    @property
    def _record(self) -> _Stored:
        return self._stored or _Stored(self.identity)

    def _keep(self, stored: _Stored) -> None:
        """Remember, in the file first: an answer leaves the node after what it gives away is on record."""
        if self._file:
            self._file.parent.mkdir(mode=0o700, exist_ok=True)
            with replaced_file(self._file, OWNER_ALONE) as path:
                path.write_bytes(_ADAPTER.dump_json(stored))
        self._stored = stored


def memory_file(folder: Path, part: int, parts: int) -> Path:
    """Return the file of the node that hosts part `part` of a folder's users."""
    return folder / NODE_KEYS / f"part-{part}-of-{parts}.json"


def _load(file: Path) -> _Stored:
    try:
        return _ADAPTER.validate_json(regular(file, REMEDY).read_bytes())
    except (ValidationError, OSError) as error:
        raise InputError(f"{file} cannot be read ({type(error).__name__}); {REMEDY}") from error
