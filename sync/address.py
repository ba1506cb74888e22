"""Addresses to listen on, as people write them: `127.0.0.1:8520`, `[::1]:8520`, `localhost:8520`."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

__all__ = ["Address", "ListenAddress", "is_literal", "parse_address"]

_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[0-9A-Za-z._-]+)):(?P<port>\d{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """A host, without brackets, and a port; port 0 is any that is free."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Can nobody but this machine reach it."""
        return self.host == "localhost" or (is_literal(self.host) and ipaddress.ip_address(self.host).is_loopback)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_literal(host: str) -> bool:
    """Is it an IP address, and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse_address(text: str) -> Address:
    """The address; raises `ValueError`. The host is never left out: that would be every network there is."""
    match = _ADDRESS.fullmatch(text.strip())
    host = (match["six"] or match["name"]) if match else ""
    if match is None or int(match["port"]) > 65535 or (match["six"] and not is_literal(host)):
        raise ValueError("not an address: write a host and a port, 127.0.0.1:8520 say")
    return Address(host.lower(), int(match["port"]))


def _checked(text: str) -> str:
    return str(parse_address(text))


ListenAddress = Annotated[str, AfterValidator(_checked)]
"""Text that `parse_address` takes."""
