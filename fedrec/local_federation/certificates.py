"""Certificates and keys to try a federation with: an authority, the server's certificate, and a key for each node.

For development: a real federation has its own authority, and makes each node's key on the node.
"""

import datetime
import ipaddress
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import idna
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedrec.data.errors import InputError

AUTHORITY, CERTIFICATE, KEY = "ca.crt", "server.crt", "server.key"
DAYS = 90
LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")  # _ is for container networks, whose names have it


def certify(folder: Path, hosts: Sequence[str]) -> list[str]:
    """Write the authority's certificate, and the server's with its key; the names and addresses that it is for.

    International names are written in ASCII (xn--…). The authority's own key is thrown away, so that nothing else can
    ever be signed with it. Raises `InputError` for a host that is neither a name nor an address, and if the folder
    already holds certificates: whoever trusts them would no longer be let in.
    """
    alternatives = list(dict.fromkeys(_alternative_name(host) for host in hosts))
    for name in (AUTHORITY, CERTIFICATE, KEY):
        _refuse_existing(folder / name)
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = _name("fedrec development authority")
    authority = (
        _certificate_builder(authority_name, authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    server = (
        _certificate_builder(_name("fedrec development server"), authority_name, server_key.public_key())
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    _write_new(folder / AUTHORITY, authority.public_bytes(pem), 0o644)
    _write_new(folder / CERTIFICATE, server.public_bytes(pem), 0o644)
    private = serialization.PrivateFormat.PKCS8
    _write_new(folder / KEY, server_key.private_bytes(pem, private, serialization.NoEncryption()), 0o600)
    return [str(alternative.value) for alternative in alternatives]


def node_key(path: Path) -> Path:
    """Write a node's private key to `path`, and beside it, returned, the public one that the server registers.

    Both as `ssh-keygen -t ecdsa -b 384` makes them. Raises `InputError` where there is a key already.
    """
    _refuse_existing(path)
    _refuse_existing(path.with_name(f"{path.name}.pub"))
    key, public = ec.generate_private_key(ec.SECP384R1()), path.with_name(f"{path.name}.pub")
    private = serialization.PrivateFormat.OpenSSH
    _write_new(path, key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()), 0o600)
    told = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    _write_new(public, told + b"\n", 0o644)
    return public


def _certificate_builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=DAYS))
    )


def _key_usage(**uses: bool) -> x509.KeyUsage:
    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{use: uses.get(use, False) for use in every})


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative_name(host: str) -> x509.GeneralName:
    """Convert a host to its form in certificates. Raises `InputError` if it is neither a DNS name nor an IP address."""
    with suppress(ValueError):
        if "%" not in host:  # a zone is a matter of one machine
            return x509.IPAddress(ipaddress.ip_address(host))
    if (name := _dns_name(host)) is None:
        meant = _host_within(host)
        remedy = (
            f"did you mean `host={meant}`?" if meant else "give one of them, alone, as in `host=fedrec.example.org`"
        )
        raise InputError(f"`host` {host!r} is neither a DNS name nor an IP address; {remedy}")
    return x509.DNSName(name)


def _dns_name(host: str) -> str | None:
    """Convert a name to ASCII; None if it is no DNS name."""
    with suppress(idna.IDNAError):
        name = host if host.isascii() else idna.encode(host, uts46=True).decode()
        labels = name.removeprefix("*.").split(".")
        if len(name) <= 253 and all(LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit():
            return name
    return None


def _host_within(host: str) -> str | None:
    """Extract the host of a URL, of host:port or of a bracketed address; None if there is none."""
    if any(character.isspace() or character == "%" for character in host):
        return None
    with suppress(ValueError):
        within = urlsplit(host if "//" in host else f"//{host}").hostname or ""
        with suppress(ValueError):
            return str(ipaddress.ip_address(within))
        return _dns_name(within)
    return None


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise _existing_error(path)


def _existing_error(path: Path) -> InputError:
    return InputError(f"{path} is there already, and may be trusted somewhere; choose another folder")


def _write_new(path: Path, content: bytes, rights: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.touch(mode=rights, exist_ok=False)
    except FileExistsError as error:  # made meanwhile by another command
        raise _existing_error(path) from error
    path.write_bytes(content)
