"""What goes on when the process is killed: one scenario for each kind of work, with the points it goes through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.acceptance import faults
from tests.crash.ground import FAST, SYNC, Ground

RUN = ("run", "--json")
FIRST = (*RUN, "--first-run")


def _nothing(ground: Ground) -> None:
    """The source stays as it is."""


def _changes(ground: Ground) -> None:
    ground.change()


@dataclass(frozen=True)
class Scenario:
    """`prepare` is done first, then `command` is killed at each of the `points`, at these of its visits.

    `writes` are names of ledger writes, of which both points are meant. `code` is what the command says once all
    is done; `fresh` begins with a project that was never run.
    """

    name: str
    prepare: Callable[[Ground], None]
    writes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    points: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    command: tuple[str, ...] = RUN
    code: int = 0
    fresh: bool = False
    counting: bool = False
    mend: Callable[[Ground], None] = _nothing

    @property
    def faults(self) -> list[tuple[str, int]]:
        """(point, visit), each once."""
        sides = [
            (f"{w}.{side}", v) for w, visits in self.writes.items() for side in ("before", "after") for v in visits
        ]
        return sides + [(p, v) for p, visits in self.points.items() for v in visits]


# --- preparations ---------------------------------------------------------------------------------------------


def _refuses_records(ground: Ground) -> None:
    ground.refused = frozenset({205, 206})
    ground.sink.faults = (faults.poison_records(ground.refused, 207),)
    ground.change()


def _refuses_batches(ground: Ground) -> None:
    ground.refused = frozenset({205})
    ground.sink.faults = (faults.poison_batch(ground.refused),)
    ground.change()


def _is_busy(ground: Ground) -> None:
    ground.sink.faults = (faults.at({2, 5}, faults.rate_limited(0.05)),)
    ground.change()


def _is_down(ground: Ground) -> None:
    ground.project.extra = FAST + "attempts = 1\n"
    ground.project.write()
    ground.sink.faults = (faults.always(faults.SERVER_ERROR),)
    ground.change()


def _is_up(ground: Ground) -> None:
    ground.sink.faults = ()


def _is_slow(ground: Ground) -> None:
    ground.project.extra = FAST.replace("12s", "5600ms")
    ground.project.write()
    ground.sink.latency = 0.3
    ground.change()


def _loses_many(ground: Ground) -> None:
    ground.project.sql("DELETE FROM vip_cohort WHERE user_id <= 40")


def _is_held(ground: Ground) -> None:
    _loses_many(ground)
    assert ground.run().code == 3


def _is_approved_and_moves(ground: Ground) -> None:
    _is_held(ground)
    done = ground.headgate("approve", SYNC, "--reason", "they left", "--later", "--json")
    assert done.code == 0, done.text
    ground.project.more_people(201, 10)


def _was_refused(ground: Ground) -> None:
    _refuses_records(ground)
    assert ground.run().code == 4


def _was_refused_and_left(ground: Ground) -> None:
    _was_refused(ground)
    ground.project.sql("DELETE FROM vip_cohort WHERE user_id IN (205, 206)")


def _was_killed(ground: Ground) -> None:
    ground.change()
    assert ground.run("request.answered:4:kill").code == -9


def _has_jobs(ground: Ground) -> None:
    _is_of_type(ground, "crash_jobs")


def _counts(ground: Ground) -> None:
    """A batch was sent, and nobody knows its answer: it must not be sent again."""
    _is_of_type(ground, "crash_counter")
    assert ground.run("request.answered:3:kill", "--first-run").code == -9


def _is_of_type(ground: Ground, connector: str) -> None:
    config = ground.project.root / "config.toml"
    lines = config.read_text().replace('"webhook"', f'"{connector}"').splitlines()
    config.write_text("\n".join(line for line in lines if not line.startswith(("batch_size", "concurrency"))))


SCENARIOS = (
    Scenario(
        "changes",
        _changes,
        dict.fromkeys(("acquire", "release", "add_refresh", "add_plan", "open", "finish"), (1,))
        | {"remember": (1,), "intend": (1, 4, 7), "acknowledge": (1, 4, 7)},
        dict.fromkeys(("plan_file.written", "plan_file.named", "members_file.written", "members_file.named"), (1,))
        | {"request.leaving": (1, 4, 7), "request.answered": (1, 4, 7)}
        | dict.fromkeys(("checkpoint.signed", "checkpoint.placed", "checkpoint.copied"), (1,)),
    ),
    Scenario(
        "some records are refused",
        _refuses_records,
        {"acknowledge": (1,), "finish": (1,)},
        dict.fromkeys(("rejected_file.written", "rejected_file.named", "members_file.named"), (1,)),
        code=4,
    ),
    Scenario("whole batches are refused", _refuses_batches, {"split": (1, 3)}, {"request.leaving": (5,)}, code=4),
    Scenario("the destination is busy", _is_busy, {"settle": (1,)}, {"request.leaving": (3,)}),
    Scenario("the destination is down", _is_down, {"record": (1,)}, mend=_is_up),
    Scenario("requests are slow", _is_slow, {"renew": (1,)}),
    Scenario(
        "the first run",
        _nothing,
        dict.fromkeys(("acquire", "open", "finish"), (1,)) | {"intend": (1, 10), "acknowledge": (10,)},
        dict.fromkeys(
            ("ledger.opened", "ledger.migrated", "checkpoint.key", "checkpoint.pinned", "checkpoint.signed"), (1,)
        )
        | dict.fromkeys(("plan_file.named", "members_file.named"), (1,)),
        FIRST,
        fresh=True,
    ),
    Scenario("nothing changed", _nothing, dict.fromkeys(("add_run", "add_refresh", "release"), (1,))),
    Scenario("removals are held", _loses_many, {"add_plan": (1,), "add_run": (1,)}),
    Scenario(
        "a held plan is approved",
        _is_held,
        {"decide": (1,), "open": (1,), "intend": (2,), "finish": (1,)},
        {"request.answered": (1, 2)},
        ("approve", SYNC, "--reason", "they left", "--json"),
    ),
    Scenario("an approval is overtaken", _is_approved_and_moves, {"set_plan": (1,), "add_plan": (1,)}),
    Scenario("what was refused left the source", _was_refused_and_left, {"drop_rejected": (1,)}),
    Scenario(
        "a killed run is resumed",
        _was_killed,
        {"set_run": (1,), "intend": (1, 3), "acknowledge": (1,), "finish": (1,), "add_run": (1,)},
        {"request.leaving": (1,), "request.answered": (1, 2), "members_file.named": (1,)},
    ),
    Scenario(
        "batches become jobs",
        _has_jobs,
        {"keep_job": (1, 4, 12), "set_run": (1, 2), "acknowledge": (1, 10), "finish": (1,)},
        {"poll.answered": (1, 2, 15), "request.answered": (5,)},
        FIRST,
        fresh=True,
    ),
    Scenario(
        "what may have been counted is not sent again",
        _counts,
        {"park": (1,)},
        command=FIRST,
        code=4,
        fresh=True,
        counting=True,
    ),
)
"""Of each the command is run to its end after the kill, and source, members and destination must agree."""
