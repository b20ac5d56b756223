"""The server's side of secure aggregation for one group: it collects what the nodes send, and unmasks their sum."""

from collections.abc import Sequence

import numpy as np

from fedrec.federation.secure_aggregation.config import SecureAggregationConfig
from fedrec.federation.secure_aggregation.group import Group
from fedrec.federation.secure_aggregation.key_agreement import key_pair_of
from fedrec.federation.secure_aggregation.mask_stream import add_masks
from fedrec.federation.secure_aggregation.node_session import shared_masks
from fedrec.federation.secure_aggregation.sealing import SEAL_BYTES
from fedrec.federation.secure_aggregation.secret_sharing import SHARE_BYTES, recover_secret
from fedrec.federation.secure_aggregation.signing import is_signed

SEALED_BYTES = 2 * SHARE_BYTES + SEAL_BYTES


class Collector:
    """The answers of a group's nodes, by place, and the running sum of what they masked."""

    def __init__(self, group: Group, config: SecureAggregationConfig) -> None:
        self.group, self._config = group, config
        self.survivors: list[int] = []
        self.signatures: dict[int, bytes] = {}
        self._sealed: dict[int, dict[int, bytes]] = {}
        self._total: np.ndarray | None = None
        self._shares: dict[int, dict[int, bytes]] = {}
        self.revealed: list[int] = []

    @property
    def participants(self) -> list[int]:
        """The places of the nodes that shared their keys."""
        return sorted(self._sealed)

    @property
    def quorum(self) -> dict[int, bytes]:
        """As many signatures of the survivors as a node asks for."""
        enough = sorted(self.signatures)[: self.group.threshold(self._config)]
        return {place: self.signatures[place] for place in enough}

    def take_sealed(self, place: int, sealed: Sequence[bytes]) -> None:
        """Take the shares that a node has sealed for each other node. Raises `ValueError` if it is not one for each."""
        if [len(text) for text in sealed] != [SEALED_BYTES] * (len(self.group) - 1):
            raise ValueError(f"answered with {len(sealed)} sealed shares, not {len(self.group) - 1} of a fixed length")
        others = [other for other in range(len(self.group)) if other != place]
        self._sealed[place] = dict(zip(others, sealed, strict=True))

    def sealed_for(self, place: int) -> dict[int, bytes]:
        """Return what other nodes have sealed for a node, by their places."""
        return {sender: sealed[place] for sender, sealed in self._sealed.items() if sender != place}

    def take_masked(self, place: int, numbers: np.ndarray) -> None:
        """Add a node's masked sum: (P,) uint64."""
        self._total = numbers.copy() if self._total is None else np.add(self._total, numbers, out=self._total)
        self.survivors.append(place)

    def take_signature(self, place: int, signature: bytes) -> None:
        """Take a node's signature of the survivors. Raises `ValueError` if it is of something else."""
        text = self.group.survivors_text(self.survivors)
        if not is_signed(self.group.members[place].identity, text, signature):
            raise ValueError("answered with a signature that is not of these survivors")
        self.signatures[place] = signature

    def take_shares(self, place: int, shares: dict[int, bytes]) -> None:
        """Take the shares that a node reveals, by place. Raises `ValueError` if they are not of participants."""
        if not shares.keys() <= self._sealed.keys() or any(len(share) != SHARE_BYTES for share in shares.values()):
            raise ValueError("answered with shares of nodes that took no part, or of another length")
        for owner, share in shares.items():
            self._shares.setdefault(owner, {})[place + 1] = share
        self.revealed.append(place)

    def check_cover(self, places: Sequence[int] | dict[int, bytes]) -> None:
        """Raise `ValueError` if the nodes at these places are too few to go on."""
        self.group.check_cover(list(places), self._config)

    def unmask(self) -> np.ndarray:
        """Return the sum over the survivors: (P,) uint64. Raises `ValueError` if shares are missing, or wrong."""
        if self._total is None:
            raise ValueError("no sum has come")
        total, lost = self._total.copy(), set(self.participants) - set(self.survivors)
        add_masks(total, [(self._recover(place), -1) for place in self.survivors])
        for place in lost:
            masking = self._recover(place)
            if key_pair_of(masking).public != self.group.members[place].masking:
                raise ValueError(f"the shares of the mask key at place {place} are wrong")
            add_masks(total, shared_masks(masking, self.group, place, self.survivors))
        return total

    def _recover(self, place: int) -> bytes:
        shares, threshold = self._shares.get(place, {}), self.group.threshold(self._config)
        if len(shares) < threshold:
            raise ValueError(f"{len(shares)} shares of the secret at place {place}, and {threshold} are needed")
        return recover_secret({x: shares[x] for x in sorted(shares)[:threshold]})
