"""Names by which the endpoint may be addressed.

A page from elsewhere can give its own name the address of this machine (DNS rebinding), and would then read answers as
if they were its own: but a browser goes on telling that name in `Host`.
"""

import ipaddress
import re
from dataclasses import dataclass

from fedrec.serving.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Hosts:
    """Names in lower case; `*.example.org` stands for all below it, and `*` for any."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, settings: Settings) -> "Hosts":
        """Those of `allowed_hosts`; if there are none, this machine's own if it listens there alone, and else any."""
        if settings.allowed_hosts:
            return cls(tuple(name.lower().rstrip(".") for name in settings.allowed_hosts))
        own = f"[{settings.host}]" if ":" in settings.host else settings.host.lower()
        return cls((*LOOPBACK, own) if _is_loopback(settings.host) else ("*",))

    def allow(self, header: bytes) -> bool:
        """Whether a request with this `Host` header (b"" if it has none) may pass."""
        found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(:\d*)?", header.decode("latin-1").lower())
        name = found[1].rstrip(".") if found else ""
        return any(known in ("*", name) or (known[:2] == "*." and name.endswith(known[1:])) for known in self.names)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
