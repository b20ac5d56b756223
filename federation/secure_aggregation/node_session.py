"""A node's side of secure aggregation for one question, as steps from session to session (Bonawitz et al. 2017,
arXiv:1611.04482, figure 4, with the consistency check).

Every step refuses what comes out of turn by `ValueError`, so that one session masks one vector, signs one list of
survivors, and gives away of each other node the share of its mask key or the share of its seed, never both.
"""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fedrec.federation.key_stream import KEY_BYTES
from fedrec.federation.secure_aggregation.config import SecureAggregationConfig
from fedrec.federation.secure_aggregation.group import STORED, Advertisement, Group, Question
from fedrec.federation.secure_aggregation.key_agreement import agree_on_keys, draw_key_pair
from fedrec.federation.secure_aggregation.mask_stream import add_masks
from fedrec.federation.secure_aggregation.sealing import seal, unseal
from fedrec.federation.secure_aggregation.secret_sharing import SHARE_BYTES, share_secret
from fedrec.federation.secure_aggregation.signing import identity_of, is_signed, sign


@dataclass(frozen=True)
class Session:
    """What a node keeps between two messages of a question: secret, and gone when the question is answered."""

    __pydantic_config__ = STORED

    advertisement: Advertisement
    question: Question
    sealing: bytes  # private; gone when the keys that it gives are derived
    masking: bytes  # private
    seed: bytes  # key of the node's own mask
    group: Group | None = None
    sealing_keys: tuple[tuple[int, bytes], ...] = ()  # place of another node → the key of what both seal for each other
    own_share: bytes = b""  # of the seed: what another node would hold of it
    sealed: tuple[tuple[int, bytes], ...] = ()  # place of a node → its shares for this node
    survivors: tuple[int, ...] = ()

    @property
    def place(self) -> int:
        """The node's place in the group."""
        return self.known_group.place_of(self.advertisement)

    @property
    def known_group(self) -> Group:
        """The group. Raises `ValueError` if the node has not been told of it."""
        if self.group is None:
            raise ValueError("a step before the keys were shared")
        return self.group

    @property
    def participants(self) -> tuple[int, ...]:
        """The places of the nodes whose masks this node's sum has, itself among them."""
        return tuple(sorted([self.place, *(place for place, _ in self.sealed)]))


def begin(identity: bytes, question: Question, clients: int) -> Session:
    """Draw the keys of a session, and sign the public ones by the node's private identity."""
    sealing, masking = draw_key_pair(), draw_key_pair()
    unsigned = Advertisement(identity_of(identity), sealing.public, masking.public, clients)
    signed = replace(unsigned, signature=sign(identity, unsigned.signed_text(question)))
    return Session(signed, question, sealing.private, masking.private, secrets.token_bytes(KEY_BYTES))


def share_keys(session: Session, group: Group, config: SecureAggregationConfig) -> tuple[Session, list[bytes]]:
    """Share the mask key and the seed among a group, and seal each other node's shares, in the order of the places."""
    if session.group is not None:
        raise ValueError("keys are shared twice")
    group.check_cover(range(len(group)), config)
    place, threshold = group.place_of(session.advertisement), group.threshold(config)
    keys, seeds = (share_secret(secret, len(group), threshold) for secret in (session.masking, session.seed))
    sealing_keys = _sealing_keys(session, group, [other for other in range(len(group)) if other != place])
    sealed = [seal(key, keys[other] + seeds[other], _route(group, place, other)) for other, key in sealing_keys.items()]
    told = replace(session, group=group, sealing=b"", sealing_keys=tuple(sealing_keys.items()))
    return replace(told, own_share=seeds[place]), sealed


def mask(
    session: Session, sealed: Mapping[int, bytes], numbers: np.ndarray, config: SecureAggregationConfig
) -> tuple[Session, np.ndarray]:
    """Mask numbers modulo 2⁶⁴, (P,) uint64, for the sum over the nodes whose shares have come: place → sealed shares.

    The node's own mask is subtracted by the server when the seed is recovered, and those with other nodes cancel.
    """
    group, place = session.known_group, session.place
    if session.sealed:
        raise ValueError("a sum is masked twice")
    participants = [place, *sealed]
    group.check_cover(participants, config)
    masked = numbers.copy()
    add_masks(masked, [(session.seed, 1), *shared_masks(session.masking, group, place, sealed)])
    return replace(session, sealed=tuple(sorted(sealed.items()))), masked


def shared_masks(masking: bytes, group: Group, place: int, others: Collection[int]) -> list[tuple[bytes, int]]:
    """Derive the masks that the node at a place shares with those at other places, by its private mask key.

    Each is a key and a sign: of a pair, the first node adds the mask and the second subtracts it.
    """
    publics = (group.members[other].masking for other in others)
    keys = agree_on_keys(masking, publics, group.question.describe("mask") + group.session)
    return [(key, 1 if place < other else -1) for key, other in zip(keys, others, strict=True)]


def attest(
    session: Session, survivors: Collection[int], identity: bytes, config: SecureAggregationConfig
) -> tuple[Session, bytes]:
    """Sign the places of the nodes whose sums have come, of which the server may tell each node one list."""
    group = session.known_group
    if not session.sealed or session.survivors:
        raise ValueError("survivors are named twice, or before a sum was masked")
    group.check_cover(survivors, config)
    if session.place not in survivors or not set(survivors) <= set(session.participants):
        raise ValueError("survivors without this node, or with one that shared no keys")
    signature = sign(identity, group.survivors_text(survivors))
    return replace(session, survivors=tuple(sorted(survivors))), signature


def reveal(session: Session, signatures: Mapping[int, bytes], config: SecureAggregationConfig) -> dict[int, bytes]:
    """Return a share of each participant, by place: of the seed if it survived, otherwise of the mask key.

    A share that a node has sealed wrongly is left out. Raises `ValueError` unless as many survivors as the threshold
    asks for have signed the same list of survivors.
    """
    group, place, survivors = session.known_group, session.place, session.survivors
    agreed, needed = _count_signatures(group, survivors, signatures), group.threshold(config)
    if not survivors or agreed < needed:
        raise ValueError(f"{agreed} nodes have signed these survivors, and {needed} are needed")
    found, keys = {place: session.own_share}, dict(session.sealing_keys)
    for sender, sealed in session.sealed:
        if shares := _open_shares(keys[sender], sealed, _route(group, sender, place)):
            found[sender] = shares[SHARE_BYTES:] if sender in survivors else shares[:SHARE_BYTES]
    return found


def _count_signatures(group: Group, survivors: Collection[int], signatures: Mapping[int, bytes]) -> int:
    """Count the survivors that have signed the list of survivors."""
    text = group.survivors_text(survivors)
    return sum(
        place in survivors and is_signed(group.members[place].identity, text, signature)
        for place, signature in signatures.items()
    )


def _open_shares(key: bytes, sealed: bytes, route: bytes) -> bytes | None:
    """Open the shares of the mask key and of the seed of another node; None if that node has sealed others."""
    try:
        shares = unseal(key, sealed, route)
    except ValueError:
        return None
    return shares if len(shares) == 2 * SHARE_BYTES else None


def _sealing_keys(session: Session, group: Group, others: Collection[int]) -> dict[int, bytes]:
    publics = (group.members[other].sealing for other in others)
    purpose = group.question.describe("sealing") + group.session
    return dict(zip(others, agree_on_keys(session.sealing, publics, purpose), strict=True))


def _route(group: Group, sender: int, receiver: int) -> bytes:
    return group.session + sender.to_bytes(8) + receiver.to_bytes(8)
