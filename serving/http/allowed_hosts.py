"""Host names that the endpoint answers to.

A foreign page can resolve its own name to this machine's address (DNS rebinding) to read answers as if they were of its
own origin; but the browser still sends that name in `Host`.
"""

import ipaddress
import re
from dataclasses import dataclass

from fedrec.serving.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class AllowedHosts:
    """Names in lower case; `*.example.org` matches every name below it, and `*` any name."""

    names: tuple[str, ...]

    @classmethod
    def from_settings(cls, settings: Settings) -> "AllowedHosts":
        """Take `allowed_hosts`; if empty, loopback names if the server listens on loopback, else any name."""
        if settings.allowed_hosts:
            return cls(tuple(name.lower().rstrip(".") for name in settings.allowed_hosts))
        own = f"[{settings.host}]" if ":" in settings.host else settings.host.lower()
        return cls((*LOOPBACK, own) if _is_loopback(settings.host) else ("*",))

    def allow(self, header: bytes) -> bool:
        """Check a request's `Host` header (b"" if it has none)."""
        match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:\d*)?", header.decode("latin-1").lower())
        name = match[1].rstrip(".") if match else ""
        return any(known in ("*", name) or (known[:2] == "*." and name.endswith(known[1:])) for known in self.names)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
