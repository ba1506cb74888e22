"""What config.toml and a mapping allow together: the stricter of the two, always."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from sync.durations import parse_rate
from sync.engine.job import GuardrailLimits
from sync.mapping import Approve, DeliveryRules, Guardrails
from sync.sdk.nouns import Limits, Op
from sync.settings import GuardrailSettings

__all__ = ["guardrail_limits", "loosened", "persons", "tightened", "without_effect"]

Groups = Mapping[str, tuple[str, ...]]

_NUMBERS = (
    "max_removed",
    "max_removed_pct",
    "max_removed_pct_7d",
    "max_added_pct",
    "max_nulled_pct",
    "max_bad_keys",
    "warn_rejected_pct",
    "stop_rejected_pct",
)


def persons(approve: Approve, groups: Groups) -> frozenset[str]:
    """Who may approve, with groups replaced by their persons; empty: anybody."""
    return frozenset(person for name in approve.by for person in groups.get(name, (name,)))


def guardrail_limits(ceiling: GuardrailSettings, rules: Guardrails, groups: Groups) -> GuardrailLimits:
    """The limits a sync's plans are judged by; `loosened` has said before whether `rules` goes past `ceiling`."""
    numbers: dict[str, Any] = {name: _lower(getattr(ceiling, name), getattr(rules, name)) for name in _NUMBERS}
    required, own = persons(ceiling.approve, groups), persons(rules.approve, groups)
    allowed = frozenset(Op) if ceiling.allow_irreversible is None else frozenset(ceiling.allow_irreversible)
    return GuardrailLimits(
        **numbers,
        small_removal=ceiling.small_removal,
        hold_additions=ceiling.hold_additions or bool(rules.hold_additions),
        allow_irreversible=frozenset(rules.allow_irreversible) & allowed,
        approvers=(own & required or required) if required else own,
        four_eyes=ceiling.approve.four_eyes or rules.approve.four_eyes,
    )


def _lower(ceiling: float, own: float | None) -> float:
    return ceiling if own is None else min(ceiling, own)


def loosened(
    ceiling: GuardrailSettings, rules: Guardrails, groups: Groups
) -> Iterator[tuple[tuple[str, ...], str]]:
    """The rules that would allow more than config.toml: (way inside `guardrails`, sentence)."""
    for name in _NUMBERS:
        own, most = getattr(rules, name), getattr(ceiling, name)
        if own is not None and own > most:
            yield (name,), f"`{name}` is {own:g}, and config.toml allows at most {most:g}"
    if ceiling.hold_additions and rules.hold_additions is False:
        yield ("hold_additions",), "`hold_additions` is false, and config.toml says true"
    extra = set(rules.allow_irreversible) - set(ceiling.allow_irreversible or Op)
    if ceiling.allow_irreversible is not None and extra:
        yield ("allow_irreversible",), f"config.toml does not let mappings allow `{min(extra)}`"
    yield from _loosened_approval(ceiling.approve, rules.approve, groups)


def _loosened_approval(ceiling: Approve, own: Approve, groups: Groups) -> Iterator[tuple[tuple[str, ...], str]]:
    if ceiling.four_eyes and "four_eyes" in own.model_fields_set and not own.four_eyes:
        yield ("approve", "four_eyes"), "`four_eyes` is false, and config.toml says true"
    required = persons(ceiling, groups)
    others = persons(own, groups) - required
    if required and others:
        yield ("approve", "by"), f"`{min(others)}` may not approve: config.toml names who may"


def tightened(limits: Limits, *rules: DeliveryRules) -> Limits:
    """The object's limits made stricter by config.toml and the mapping; they are never made looser."""
    for rule in rules:
        rates = (parse_rate(rule.rate_limit),) if rule.rate_limit else ()
        limits = replace(
            limits,
            batch_size=min((n for n in (limits.batch_size, rule.batch_size) if n is not None), default=None),
            concurrency=min(limits.concurrency, rule.concurrency or limits.concurrency),
            rates=limits.rates + tuple(rate for rate in rates if rate not in limits.rates),
        )
    return limits


def without_effect(limits: Limits, rule: DeliveryRules) -> Iterator[tuple[str, str]]:
    """The rules that ask for more than the destination takes: (key, sentence)."""
    if rule.batch_size is not None and limits.batch_size is not None and rule.batch_size > limits.batch_size:
        yield "batch_size", f"batches stay at {limits.batch_size} records, the destination's limit"
    if rule.concurrency is not None and rule.concurrency > limits.concurrency:
        yield "concurrency", f"{limits.concurrency} requests at a time stay the destination's limit"
