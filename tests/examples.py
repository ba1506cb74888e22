"""How many examples property tests try: few, the same each time; many with `--hypothesis-profile=slow`."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

__all__ = ["examples"]

_FACTOR = 25

settings.register_profile("slow", max_examples=100 * _FACTOR, deadline=None, print_blob=True)


def examples(count: int) -> settings:
    """Settings for so many examples, and for many times as many under the profile `slow`."""
    slow = settings.get_current_profile_name() == "slow"
    return settings(
        max_examples=count * (_FACTOR if slow else 1),
        derandomize=not slow,
        database=None,
        deadline=None,
        phases=tuple(Phase) if slow else (Phase.explicit, Phase.generate),  # to shrink takes minutes
        suppress_health_check=list(HealthCheck),
    )
