"""Unpacks compressed answers piece by piece, so that a small answer cannot become a huge one in memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

__all__ = ["ACCEPTED", "Undecodable", "decompressed"]

ACCEPTED = "gzip"
"""What requests ask for. Anything else was not asked for, compression upon compression least of all."""

_GZIP = 31  # zlib's number for a gzip header and the largest window
_PIECE = 256 * 1024  # bytes unpacked at once


class Undecodable(Exception):
    """The answer is not what its `Content-Encoding` says, or that is none we asked for."""


def decompressed(parts: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The body unpacked, in pieces of at most 256 KiB; `encoding` is the value of `Content-Encoding`.

    Raises `Undecodable`, also where the packed body ends before its own end mark.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return iter(parts)
    if name not in ("gzip", "x-gzip"):
        raise Undecodable("its Content-Encoding is not gzip")
    return _gunzipped(parts)


def _gunzipped(parts: Iterable[bytes]) -> Iterator[bytes]:
    """gzip (RFC 1952): one member after the other. A body of no bytes at all is an empty one."""
    member = None
    try:
        for part in parts:
            rest = part
            while rest:
                if member is None or member.eof:
                    member = zlib.decompressobj(_GZIP)
                yield from _pieces(member, rest)
                rest = member.unused_data
    except zlib.error as exc:
        raise Undecodable(str(exc)) from None
    if member is not None and not member.eof:
        raise Undecodable("it ends before its end")


def _pieces(member: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    """What these bytes unpack to."""
    while True:
        piece = member.decompress(packed, _PIECE)
        yield piece
        packed = member.unconsumed_tail
        if member.eof or (not packed and len(piece) < _PIECE):
            return
