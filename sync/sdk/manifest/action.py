"""The requests of a manifest that change something, and what in them does not go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from sync.sdk.manifest.audience import Create
from sync.sdk.manifest.forms import Answer, Code, Rows, Silent
from sync.sdk.manifest.job import JobAnswer
from sync.sdk.manifest.request import Call, Carrier
from sync.sdk.manifest.text import placeholders
from sync.sdk.nouns import Op

__all__ = ["Action", "answers"]


class Action(Carrier):
    """A request that changes something, and how its answer is read.

    Where a platform wants an upload begun and ended, `open` goes first, and gives the id that is `{opened}` from
    then on; `close` goes last, and it is its answer that `answer` reads, while `taken` says what proves that the
    members arrived.

    Of several ops in one body, `lists` gives each its key, `records` each its template of a record, and
    `instructions` each an object of the list `members`, in which `{members}` are the values of that op.
    """

    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    lists: Mapping[Op, str] = {}
    omit_empty: bool = False  # of `lists`, those with nobody in them
    records: Mapping[Op, JsonValue] = {}
    instructions: Mapping[Op, JsonValue] = {}
    gone: tuple[int, ...] = ()  # statuses by which a removal finds nobody, which is as good as done
    exists: tuple[int, ...] = ()  # statuses by which an addition finds somebody there, which is as good as done
    open: Create | None = None
    close: Call | None = None
    taken: Silent | None = None
    answer: Annotated[Answer | JobAnswer, Field(discriminator="kind")]

    @property
    def ops(self) -> frozenset[Op]:
        """The ops that a mixed request tells apart."""
        return frozenset(self.lists) | frozenset(self.records) | frozenset(self.instructions)

    def record_names(self) -> Iterator[tuple[str, str]]:
        """Every placeholder of the templates of one record."""
        yield from super().record_names()
        yield from placeholders(dict(self.records), "records")

    def instruction_names(self) -> Iterator[tuple[str, str]]:
        """Every placeholder of the instructions."""
        yield from placeholders(dict(self.instructions), "instructions")

    def mistakes(self) -> Iterator[tuple[bool, str]]:
        """What does not go together."""
        yield from super().mistakes()
        batch = self.per == "batch"
        ways = [bool(self.lists), bool(self.records), bool(self.instructions)]
        yield sum(ways) > 1, "give one of `lists`, `records` and `instructions`"
        several = bool(self.lists) or bool(self.instructions)
        yield several and (self.place != "json" or not batch), "several ops need one JSON body a batch"
        yield bool(self.lists) and bool(self.members), "give either `members` or `lists`"
        yield bool(self.records) and (self.record is not None or bool(self.value)), "give `record` or `records`"
        whole = isinstance(self.answer, Silent | Code)
        yield (
            not batch and not whole,
            "with `per` record the answer is silent or a code: it speaks of one record",
        )
        yield (
            not self.members and not several and bool(self.body) and batch and self.place == "json",
            "`members` is missing: a body with constants cannot be the list itself",
        )
        yield (
            not batch and (self.open is not None or self.close is not None),
            "`open` and `close` need `per` batch",
        )
        yield (self.close is None) != (self.taken is None), "`close` needs `taken`: what proves that all arrived?"
        for answer in answers(self.answer):
            blank = isinstance(answer, Silent) and 200 in answer.proven
            documented = 'where that is documented, set `plain_success = ["empty"]`'
            yield blank, f"`proven`: a 200 without a body proves nothing; {documented}"
            rows = isinstance(answer, Rows)
            both = rows and bool(answer.status) == (answer.error is not None)
            yield both, "rows are told by a `status`, with `good`, or by an `error`: give one of them"
            yield rows and bool(answer.status) and not answer.good, "`good` is missing: which statuses are?"
            yield rows and bool(answer.later) and not answer.status, "`later` needs `status`"
            yield rows and bool(answer.index and answer.match), "rows are told by `index` or by `match`: give one"
            named = not rows or not answer.match or answer.keyed or bool(answer.identifier)
            yield not named, "`identifier` is missing: whom is a row about, as `match` has it?"
            yield rows and answer.keyed and not answer.match, "`match` is missing: what are the rows' keys?"
        yield batch and bool(self.gone or self.exists), "`gone` and `exists` need `per` record: they speak of one"


def answers(answer: Any) -> list[Any]:
    """An answer, and those that its job has."""
    return [answer.at_once, answer.poll.answer] if isinstance(answer, JobAnswer) else [answer]
