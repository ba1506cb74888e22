"""The long form of every code and guardrail, for `headgate explain`; the texts are in codes.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sync.errors import UsageError
from sync.files import nearest

__all__ = ["Code", "catalog", "explain"]


@dataclass(frozen=True, slots=True)
class Code:
    """What a code stands for: what it means, why it comes up, and what to do about it."""

    code: str
    title: str
    means: str
    why: str
    fix: str
    example: str = ""
    guardrail: str = ""  # the guardrail's name, where the code is one's

    def __str__(self) -> str:
        name = f" ({self.guardrail})" if self.guardrail else ""
        parts = [f"{self.code}{name}: {self.title}", self.means, f"Why: {self.why}", f"What to do: {self.fix}"]
        return "\n\n".join(parts + ([f"Example:\n{_indented(self.example)}"] if self.example else []))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.strip().splitlines())


@cache
def catalog() -> dict[str, Code]:
    """Every code, in order."""
    data = tomllib.loads((Path(__file__).parent / "codes.toml").read_text(encoding="utf-8"))
    return {code: Code(code=code, **entry) for code, entry in sorted(data.items())}


def explain(name: str) -> Code:
    """The entry of a code (`HG202`, `hg202`, `202`) or a guardrail (`removals_pct`).

    Raises `UsageError` where there is none.
    """
    codes = catalog()
    word = name.strip()
    code = f"HG{word}" if word.isdigit() else word.upper()
    if code in codes:
        return codes[code]
    guardrails = {entry.guardrail: entry for entry in codes.values() if entry.guardrail}
    wanted = word.lower().replace("-", "_")
    if wanted in guardrails:
        return guardrails[wanted]
    near = nearest(wanted, guardrails) or nearest(code, codes)
    fix = f"Did you mean `{near}`?" if near else "Codes look like HG202; messages end with theirs."
    raise UsageError(f"there is no code or guardrail `{name}`", code="HG194", fix=fix)
