"""Canaries for secrets and for a person, and the forms they could leak in."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote, quote_plus


@dataclass(frozen=True)
class Canary:
    """A text that must not be found, or only where it is documented."""

    name: str
    text: str

    @cached_property
    def forms(self) -> dict[str, bytes]:
        """The canary as it could be written: encoding -> bytes to look for."""
        raw = self.text.encode()
        found = {
            "plain": raw,
            "percent": quote(self.text, safe="").encode(),
            "plus": quote_plus(self.text).encode(),
            "json": json.dumps(self.text)[1:-1].encode(),
            "hex": raw.hex().encode(),
            "HEX": raw.hex().upper().encode(),
            "utf-16": self.text.encode("utf-16-le"),
        }
        for shift in range(3):  # base64 of a longer text that has it in it, at each of the three alignments
            coded = base64.b64encode(b"\0" * shift + raw)
            found[f"base64+{shift}"] = coded[4 if shift else 0 : len(coded) - 4]
            found[f"base64url+{shift}"] = found[f"base64+{shift}"].translate(bytes.maketrans(b"+/", b"-_"))
        return found

    def encodings_in(self, data: bytes) -> list[str]:
        """The forms of it that are in the data."""
        return [encoding for encoding, form in self.forms.items() if form in data]


# Of the environment; the characters are those that encodings change.
SECRETS = {
    "token": Canary("token", 'tkn-canary+4f/9e=c2&"71%'),
    "hmac": Canary("hmac", "hmac-canary~8d!f0*b3c6:e5"),
    "state key": Canary("state key", base64.b64encode(b"canary-state-key-32-bytes-long!!").decode()),
    "password": Canary("password", "pwd-canary;3e(7a)1d,95"),
    "url password": Canary("url password", "urlpwd-canary-2b6d90"),
    "url key": Canary("url key", "urlkey-canary-c7f1a4"),
}

PERSON = {
    "email": Canary("email", "zoe.canary@leak-canary.example"),
    "phone": Canary("phone", "+61498765432"),
    "name": Canary("name", "Zoë-Canary Kowalska"),
}


def found_in(canaries: dict[str, Canary], data: bytes) -> Iterator[tuple[str, str]]:
    """(canary, encoding) of every canary in the data."""
    for name, canary in canaries.items():
        for encoding in canary.encodings_in(data):
            yield name, encoding
