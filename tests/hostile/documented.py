"""Answers that are lies elsewhere, and that a platform documents as what it says when all went well.

Whoever reads those cannot know better: they name nobody, or nobody whom the request was about.
"""

from __future__ import annotations

from sync.sdk.nouns import Op

__all__ = ["documented"]

_NAMES_NOBODY = frozenset(
    {
        "leaves one record out",
        "tells of one record more",
        "tells of people who were never sent",
        "tells of no record",
        "answers for another batch",
    }
)

_DOCUMENTED: dict[tuple[str, Op], frozenset[str]] = {
    # The number of an upload, which another upload may have; what became of it is a count.
    ("google_data_manager audience_device", Op.ADD): frozenset({"answers for another batch"}),
    ("google_data_manager audience_device", Op.REMOVE): frozenset({"answers for another batch"}),
    ("google_data_manager audience_member", Op.ADD): frozenset({"answers for another batch"}),
    ("google_data_manager audience_member", Op.REMOVE): frozenset({"answers for another batch"}),
    # 204, whatever comes with it.
    ("launchdarkly big_segment_member", Op.ADD): frozenset({"answers 204 with a body"}),
    ("launchdarkly big_segment_member", Op.REMOVE): frozenset({"answers 204 with a body"}),
    # Everybody who is there: who came is in it twice or once, and who left is not.
    ("launchdarkly segment_member", Op.ADD): frozenset({"tells of one record more"}),
    ("launchdarkly segment_member", Op.REMOVE): _NAMES_NOBODY,
    # `{}`: everybody was taken.
    ("customerio person", Op.ADD): frozenset({"answers 200 with {}"}),
    ("customerio person", Op.UPDATE): frozenset({"answers 200 with {}"}),
    ("customerio person_by_email", Op.ADD): frozenset({"answers 200 with {}"}),
    ("customerio person_by_email", Op.UPDATE): frozenset({"answers 200 with {}"}),
    # One contact, whose only list is of tags; who is not in a segment's answer is looked up.
    ("mailchimp member", Op.ADD): _NAMES_NOBODY - {"answers for another batch"},
    ("mailchimp member", Op.UPDATE): _NAMES_NOBODY,
    ("mailchimp segment_member", Op.ADD): _NAMES_NOBODY,
    ("mailchimp segment_member", Op.REMOVE): _NAMES_NOBODY,
}


def documented(stand: str, op: Op | None, lie: str) -> bool:
    """Is a lie of this name what the platform of a stand documents as the answer to a good request."""
    return op is not None and lie in _DOCUMENTED.get((stand, op), ())
