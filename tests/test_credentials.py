"""Certificates and keys for a try: what a TLS handshake and OpenSSH make of them."""

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from fedrec.data.errors import InputError
from fedrec.local_federation.certificates import AUTHORITY, CERTIFICATE, KEY, certify, node_key


def greet(folder: Path, trusted: Path, name: str) -> str:
    """The protocol of a handshake with a server of this folder's certificate, by one who trusts an authority."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    client = ssl.create_default_context(cafile=str(trusted / AUTHORITY))
    ours, theirs = socket.socketpair()

    def answer() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    answering = threading.Thread(target=answer)
    answering.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as wrapped:
            return wrapped.version() or ""
    finally:
        ours.close()
        answering.join(5)


def test_a_client_that_trusts_the_authority_is_served_under_each_name(tmp_path: Path) -> None:
    certify(tmp_path, ["localhost", "127.0.0.1", "fedrec.example.org"])
    for name in ("localhost", "127.0.0.1", "fedrec.example.org"):
        assert greet(tmp_path, tmp_path, name) == "TLSv1.3"


def test_another_name_and_another_authority_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        certify(tmp_path / folder, ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        greet(tmp_path / "a", tmp_path / "a", "elsewhere.example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        greet(tmp_path / "a", tmp_path / "b", "localhost")


def test_a_nodes_key_is_one_that_openssh_reads(tmp_path: Path) -> None:
    public = node_key(tmp_path / "node-1")
    private = load_ssh_private_key((tmp_path / "node-1").read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.curve.name == "secp384r1"
    assert load_ssh_public_key(public.read_bytes()) == private.public_key()


def test_private_keys_are_for_their_owner_alone_and_are_never_replaced(tmp_path: Path) -> None:
    certify(tmp_path, ["localhost"])
    node_key(tmp_path / "node-1")
    for name in (KEY, "node-1"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    held = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"ca\.crt is there already"):
        certify(tmp_path, ["localhost"])
    with pytest.raises(InputError, match="node-1 is there already"):
        node_key(tmp_path / "node-1")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == held


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("a" * 63 + ".elb.eu-central-1.amazonaws.com", "a" * 63 + ".elb.eu-central-1.amazonaws.com"),
        (".".join(["a" * 49] * 5), ".".join(["a" * 49] * 5)),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("*.example.org", "node.example.org"),
        ("fedrec_superlink", "fedrec_superlink"),
        ("::1", "::1"),
    ],
)
def test_long_and_international_names_are_certified(host: str, name: str, tmp_path: Path) -> None:
    certify(tmp_path, [host, "localhost", host])
    for asked in (name, "localhost"):
        assert greet(tmp_path, tmp_path, asked) == "TLSv1.3"


@pytest.mark.parametrize(
    ("host", "remedy"),
    [
        ("host.example:8000", "did you mean `host=host.example`?"),
        ("https://host.example:8000/v1", "did you mean `host=host.example`?"),
        ("[::1]", "did you mean `host=::1`?"),
        ("[::1]:8000", "did you mean `host=::1`?"),
        ("https://bücher.example", "did you mean `host=xn--bcher-kva.example`?"),
        ("", "give one of them"),
        (" ", "give one of them"),
        ("a b", "give one of them"),
        ("a..b", "give one of them"),
        ("-a.example", "give one of them"),
        ("host.example.", "give one of them"),
        ("127.0.0.1.1", "give one of them"),
        ("fe80::1%eth0", "give one of them"),
        ("a" * 64 + ".example", "give one of them"),
        (".".join(["a" * 50] * 5), "give one of them"),
        ("a\nb", "give one of them"),
    ],
)
def test_what_is_no_name_is_refused(host: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        certify(tmp_path, ["localhost", host])
    told = str(refusal.value)
    assert told.startswith(f"`host` {host!r} is neither a DNS name nor an IP address; {remedy}")
    assert "\n" not in told
    assert not list(tmp_path.iterdir())
