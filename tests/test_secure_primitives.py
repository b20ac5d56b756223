"""The pieces of secure aggregation alone: against published vectors, or against another implementation."""

import hashlib
import hmac
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec.data.errors import InputError
from fedrec.federation.messages import Update
from fedrec.federation.secure_aggregation.integers import UNIT, Layout, check_room
from fedrec.federation.secure_aggregation.key_agreement import agree_on_keys, draw_key_pair, key_pair_of
from fedrec.federation.secure_aggregation.mask_stream import add_masks
from fedrec.federation.secure_aggregation.sealing import SEAL_BYTES, seal, unseal
from fedrec.federation.secure_aggregation.secret_sharing import PRIME, SHARE_BYTES, recover_secret, share_secret
from fedrec.federation.secure_aggregation.signing import draw_identity, identity_of, is_signed, sign

# ---- key agreement

ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, from the HMAC of the standard library."""
    key = hmac.digest(salt or bytes(32), secret, hashlib.sha256)
    found, block = b"", b""
    while len(found) < length:
        block = hmac.digest(key, block + info + bytes([len(found) // 32 + 1]), hashlib.sha256)
        found += block
    return found[:length]


def test_the_reference_is_the_hkdf_of_rfc_5869() -> None:
    """Appendix A.1, and A.3 without salt and info."""
    found = hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert found.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    found = hkdf(b"\x0b" * 22, b"", b"", 42)
    assert found.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"


def test_two_parties_agree_on_the_key_of_rfc_7748() -> None:
    """Section 6.1, and the HKDF of the secret there."""
    alice, bob = key_pair_of(ALICE), key_pair_of(BOB)
    assert alice.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    wanted = hkdf(SHARED, b"", b"for what", 32)
    assert (
        agree_on_keys(ALICE, [bob.public], b"for what") == [wanted] == agree_on_keys(BOB, [alice.public], b"for what")
    )
    assert agree_on_keys(ALICE, [bob.public], b"for else") != [wanted]


def test_a_key_that_makes_the_secret_public_is_refused() -> None:
    with pytest.raises(ValueError, match="shared key"):
        agree_on_keys(draw_key_pair().private, [bytes(32)], b"")


# ---- mask stream

ZERO_KEY_STREAM = bytes.fromhex(
    "dc95c078a2408989ad48a21492842087"  # test case 13: H, the cipher of zero
    "530f8afbc74536b9a963b4f1c4cb738b"  # test case 13: the tag of nothing, the cipher of one
    "cea7403d4d606b6e074ec5d3baf39d18"  # test case 14: sixteen zero bytes, by the cipher of two
)
"""AES-256 of the counters 0, 1 and 2 under a key of zeros, from McGrew and Viega, "The Galois/Counter Mode of Operation
(GCM)", appendix B."""


def test_masks_are_aes_in_counter_mode() -> None:
    numbers = np.zeros(6, dtype=np.uint64)
    add_masks(numbers, [(bytes(32), 1)])
    assert numbers.astype("<u8").tobytes() == ZERO_KEY_STREAM


def test_masks_cancel_and_do_not_repeat() -> None:
    """In more numbers than are masked at a time, under several keys at once."""
    numbers = np.arange(70_000, dtype=np.uint64)
    masks = [(b"k" * 32, 1), (b"l" * 32, -1), (b"m" * 32, 1)]
    together, apart = numbers.copy(), numbers.copy()
    add_masks(together, masks)
    for mask in masks:
        add_masks(apart, [mask])
    assert np.array_equal(apart, together)
    assert len(np.unique(together - numbers)) == len(numbers)
    add_masks(together, [(key, -sign) for key, sign in masks])
    assert np.array_equal(together, numbers)


# ---- secret sharing


def is_prime(number: int) -> bool:
    """Miller and Rabin's test to the first bases; of no composite number is it known that it passes all."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        power = pow(base, odd, number)
        passes = power in (1, number - 1)
        for _ in range(twos - 1):
            power = power * power % number
            passes = passes or power == number - 1
        if not passes:
            return False
    return True


def interpolate_at_zero(shares: dict[int, int]) -> int:
    """Lagrange's formula in fractions, and only then in the field."""
    total = 0
    for x, share in shares.items():
        weight = Fraction(1)
        for other in shares.keys() - {x}:
            weight *= Fraction(other, other - x)
        total += share * weight.numerator * pow(weight.denominator, -1, PRIME)
    return total % PRIME


def test_the_field_holds_any_secret() -> None:
    assert PRIME == 2**521 - 1 > 2**256
    assert is_prime(PRIME)
    assert not is_prime(2**523 - 1)
    assert (PRIME - 1).bit_length() <= 8 * SHARE_BYTES


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, bytes(range(32))], ids=["zeros", "ones", "counting"])
def test_any_threshold_of_shares_gives_the_secret(secret: bytes) -> None:
    shares = dict(enumerate(share_secret(secret, 5, 3), start=1))
    for some in combinations(shares, 3):
        chosen = {x: shares[x] for x in some}
        assert recover_secret(chosen) == secret
        assert interpolate_at_zero({x: int.from_bytes(share) for x, share in chosen.items()}) == int.from_bytes(secret)
    assert recover_secret(shares) == secret


def test_shares_are_on_a_polynomial_of_the_thresholds_degree() -> None:
    """Fewer shares fit any secret: for each there is one polynomial through them."""
    shares = dict(enumerate(share_secret(b"s" * 32, 5, 3), start=1))
    few = {x: int.from_bytes(shares[x]) for x in (2, 4)}
    for secret in (0, 1, 2**256 - 1):
        third = interpolate_at_zero({-3: secret, **{x - 3: share for x, share in few.items()}})
        assert interpolate_at_zero({**few, 3: third}) == secret


def test_wrong_shares_are_found() -> None:
    """Of 521 bits the result of wrong shares has more than 256, but once in 2²⁶⁵."""
    first, second = (share_secret(b"s" * 32, 3, 2) for _ in range(2))
    assert first != second
    with pytest.raises(ValueError, match="do not belong to one secret"):
        recover_secret({1: first[0], 2: second[1]})


@pytest.mark.parametrize(("secret", "count", "threshold"), [(b"s" * 31, 3, 2), (b"s" * 32, 3, 4), (b"s" * 32, 3, 0)])
def test_what_cannot_be_shared_is_refused(secret: bytes, count: int, threshold: int) -> None:
    with pytest.raises(ValueError, match="are needed"):
        share_secret(secret, count, threshold)


# ---- sealing and signing


def test_a_seal_is_the_cipher_of_rfc_8439() -> None:
    """Section 2.8.2: the text after the nonce is unsealed."""
    key, nonce = bytes(range(0x80, 0xA0)), bytes.fromhex("070000004041424344454647")
    cipher = bytes.fromhex(
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
        "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"
    )
    text = unseal(key, nonce + cipher, bytes.fromhex("50515253c0c1c2c3c4c5c6c7"))
    assert text.startswith(b"Ladies and Gentlemen of the class of '99")


def test_what_is_sealed_is_read_by_its_receiver_alone() -> None:
    sealed = seal(b"k" * 32, b"text", b"1 to 2")
    assert len(sealed) == SEAL_BYTES + 4
    assert seal(b"k" * 32, b"text", b"1 to 2") != sealed
    assert unseal(b"k" * 32, sealed, b"1 to 2") == b"text"
    changed = bytes([*sealed[:-1], sealed[-1] ^ 1])
    for key, text, about in [
        (b"o" * 32, sealed, b"1 to 2"),
        (b"k" * 32, sealed, b"1 to 3"),
        (b"k" * 32, changed, b"1 to 2"),
    ]:
        with pytest.raises(ValueError, match="a sealed text was changed"):
            unseal(key, text, about)


def test_a_signature_is_that_of_rfc_8032() -> None:
    """Section 7.1, test 1: of an empty text."""
    private = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = identity_of(private)
    assert public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    signature = sign(private, b"")
    assert signature.hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")
    assert is_signed(public, b"", signature)
    assert not is_signed(public, b"x", signature)
    assert not is_signed(identity_of(draw_identity()), b"", signature)
    assert not is_signed(b"no key", b"", signature)


# ---- integers

LAYOUT = Layout(
    {"b": torch.Size([2]), "a": torch.Size([1, 2])},
    ["loss", "learners"],
    {"b": torch.tensor(2.0**-40, dtype=torch.float64)},
)


def update_of(a: list[float], b: list[float], loss: float = 0.0) -> Update:
    deltas = {"a": torch.tensor([a], dtype=torch.float64), "b": torch.tensor(b, dtype=torch.float64)}
    return Update(3, 2, deltas, {"loss": loss, "learners": 2.0})


def test_each_number_is_a_count_of_its_unit() -> None:
    """Tensors by name, then metrics by name; a negative number counts down from 2⁶⁴."""
    numbers = LAYOUT.to_integers(update_of([1.0, -UNIT], [2.0**-40, -1.0], loss=0.5))
    wanted = [2**32, 2**64 - 1, 1, 2**64 - 2**40, 2 * 2**32, 2**31]
    assert numbers.tolist() == wanted
    assert LAYOUT.size == len(wanted)


@settings(deadline=None)
@given(st.lists(st.integers(-(2**53), 2**53), min_size=4, max_size=4))
def test_sums_come_back_to_the_bit(numbers: list[int]) -> None:
    a, b = [number * UNIT for number in numbers[:2]], [number * 2.0**-40 for number in numbers[2:]]
    update = update_of(a, b)
    found = LAYOUT.from_integers(LAYOUT.to_integers(update), 3, 2)
    assert (found.round, found.users, found.sums) == (3, 2, update.sums)
    assert all(torch.equal(tensor, update.deltas[name]) for name, tensor in found.deltas.items())


def test_the_integers_of_a_sum_are_the_sum_of_the_integers() -> None:
    one, other = update_of([1.0, -2.5], [0.25, 0.0], 0.125), update_of([-3.0, 0.5], [-1.0, 7.0], 0.25)
    added = LAYOUT.to_integers(one) + LAYOUT.to_integers(other)
    assert np.array_equal(added, LAYOUT.to_integers(one + other))


@pytest.mark.parametrize(
    ("a", "b"), [([UNIT / 2, 0.0], [0.0, 0.0]), ([0.0, 0.0], [2.0**-41, 0.0]), ([2.0**31, 0], [0.0, 0.0])]
)
def test_what_is_off_the_grid_or_too_large_is_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="not whole multiples of"):
        LAYOUT.to_integers(update_of(a, b))


def test_only_the_loss_is_rounded() -> None:
    found = LAYOUT.from_integers(LAYOUT.to_integers(update_of([0.0, 0.0], [0.0, 0.0], loss=1 / 3)), 3, 2)
    assert found.sums["loss"] == round(2**32 / 3) / 2**32


def test_a_cohort_that_could_wrap_is_refused() -> None:
    check_room(2**30 - 1, 2.0**32)
    with pytest.raises(InputError, match=r"exceed 2\^63; ask for fewer"):
        check_room(2**30, 2.0**32)
