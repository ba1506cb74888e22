"""One message for each change of state, one that it is over, and none in between, while muted, or on and off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sync.alerts.deciding import Observed, Rules, decide
from sync.conditions import Condition
from sync.state.alerts import Alert, MessageKind

OPEN = Observed("vip", Condition.HELD, True, {"plan": "p1"}, frozenset({"slack"}))
OVER = Observed("vip", Condition.HELD, False, {}, frozenset({"slack"}))
RULES = Rules()


class Told:
    """Looks at a condition again and again, as the daemon does, and keeps what people were told."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.rules, self.alert, self.news = rules, None, list[tuple[str, list[str]]]()
        self.sinces = list[float]()

    def look(self, seen: Observed, now: float, *, muted: bool = False) -> Told:
        found = decide(self.alert, seen, now, self.rules, muted=muted)
        if found is not None:
            before, (self.alert, telling) = self.alert, found
            assert self.alert.number == (before.number if before else 0) + 1
            if telling is not None:
                self.news.append((telling.kind.value, sorted(telling.targets)))
                self.sinces.append(telling.since)
        return self

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.news]


def test_what_was_never_wrong_leaves_nothing_behind() -> None:
    assert decide(None, OVER, 10.0, RULES) is None


def test_it_is_told_once_when_it_begins_and_once_when_it_is_over() -> None:
    told = Told()
    for now in range(100, 200, 15):
        told.look(OPEN, now)
    for now in range(200, 300, 15):
        told.look(OVER, now)

    assert told.news == [("opened", ["slack"]), ("recovered", ["slack"])]
    assert told.sinces == [100, 100], "both say since when it was so"


def test_nothing_is_written_while_nothing_changes() -> None:
    told = Told().look(OPEN, 100)

    assert decide(told.alert, OPEN, 5000, RULES) is None


def test_facts_that_move_are_kept_without_a_word() -> None:
    told = Told().look(OPEN, 100).look(replace(OPEN, facts={"plan": "p2"}), 200)

    assert told.kinds == ["opened"]
    assert told.alert is not None
    assert told.alert.facts == {"plan": "p2"}


def test_what_is_over_still_says_what_it_was() -> None:
    told = Told().look(OPEN, 100).look(replace(OVER, facts={"gone": True}), 200)

    assert told.alert is not None
    assert told.alert.facts == {"plan": "p1", "gone": True}


def test_nobody_hears_of_it_while_it_is_muted_and_then_of_what_is_still_wrong() -> None:
    told = Told().look(OPEN, 100, muted=True).look(OPEN, 150, muted=True)
    assert told.news == []

    told.look(OPEN, 200)

    assert told.kinds == ["opened"]


def test_what_began_and_ended_while_it_was_muted_is_never_told() -> None:
    told = Told().look(OPEN, 100, muted=True).look(OVER, 150, muted=True).look(OVER, 200)

    assert told.news == []


def test_whoever_heard_that_it_began_hears_that_it_ended_while_it_was_muted() -> None:
    told = Told().look(OPEN, 100).look(OVER, 150, muted=True)
    assert told.kinds == ["opened"]

    told.look(OVER, 200)

    assert told.news[-1] == ("recovered", ["slack"])
    assert told.sinces[-1] == 100


def test_the_end_is_told_to_those_who_were_told_of_the_beginning_and_to_no_others() -> None:
    told = Told().look(OPEN, 100).look(replace(OVER, targets=frozenset({"mail"})), 200)

    assert told.news == [("opened", ["slack"]), ("recovered", ["slack"])]


def test_a_notifier_that_comes_while_it_is_open_is_told_of_it_and_no_other_again() -> None:
    both = replace(OPEN, targets=frozenset({"mail", "slack"}))
    told = Told(Rules(repeat_after=3600)).look(OPEN, 100).look(both, 3000).look(both, 3800).look(OVER, 4000)

    assert told.news == [
        ("opened", ["slack"]),
        ("opened", ["mail"]),
        ("reminder", ["mail", "slack"]),
        ("recovered", ["mail", "slack"]),
    ]
    assert told.sinces == [100] * 4, "mail hears since when it is so"


def test_whoever_was_told_before_hears_of_another_thing_though_a_new_notifier_was_told_of_it() -> None:
    both = frozenset({"mail", "slack"})
    told = Told().look(replace(OPEN, about="p1"), 100).look(replace(OPEN, about="p2", targets=both), 200)
    told.look(replace(OPEN, about="p2", targets=both), 90_000)

    assert told.news == [("opened", ["slack"]), ("opened", ["mail"]), ("changed", ["mail", "slack"])]


def test_a_notifier_that_is_renamed_while_it_is_open_is_told_under_its_new_name() -> None:
    told = Told().look(OPEN, 100).look(replace(OPEN, targets=frozenset({"chat"})), 200)

    assert told.news == [("opened", ["slack"]), ("opened", ["chat"])]


def test_another_thing_to_decide_on_is_told_at_most_once_a_day() -> None:
    told, day = Told(), 86_400
    for now in range(0, 3 * day, day // 6):
        told.look(replace(OPEN, about=f"p{now}"), now)
    for now in range(4 * day, 6 * day, day // 6):
        told.look(replace(OPEN, about="last"), now)

    assert told.kinds == ["opened", "changed", "changed", "changed"]
    assert told.alert is not None
    assert told.alert.facts["told_of"] == "last"


def test_what_was_told_by_an_older_version_is_not_told_as_changed() -> None:
    told = Told().look(OPEN, 100).look(replace(OPEN, about="p1"), 9000)

    assert told.kinds == ["opened"]


def test_whoever_asked_for_the_end_alone_is_told_of_it_alone() -> None:
    end = frozenset({"board"})
    told = Told().look(replace(OPEN, enders=end), 100).look(replace(OVER, enders=end), 200)

    assert told.news == [("opened", ["slack"]), ("recovered", ["board", "slack"])]


def test_where_nobody_is_to_be_told_it_is_kept_and_told_once_somebody_is() -> None:
    told = Told().look(replace(OPEN, targets=frozenset()), 100)
    assert told.news == []
    assert told.alert is not None
    assert told.alert.open

    assert told.look(OPEN, 200).kinds == ["opened"]


def test_it_is_told_again_only_where_that_is_asked_for() -> None:
    silent, loud = Told(), Told(Rules(repeat_after=3600))
    for now in range(0, 7300, 100):
        silent.look(OPEN, now)
        loud.look(OPEN, now)

    assert silent.kinds == ["opened"]
    assert loud.kinds == ["opened", "reminder", "reminder"]


def flap(told: Told, times: int, start: float = 0.0, every: float = 60.0) -> float:
    for turn in range(times):
        told.look(OPEN if turn % 2 == 0 else OVER, start + turn * every)
    return start + times * every


def test_what_goes_on_and_off_is_told_once_and_summed_up_at_its_end() -> None:
    told = Told(Rules(flapping=6))
    now = flap(told, 31)
    assert told.kinds == ["opened", "recovered"] * 3 + ["flapping"]

    for later in range(int(now), int(now) + 7200, 60):
        told.look(OPEN, later)

    assert told.kinds[7:] == ["settled"], "it settled as open, and is told once"
    assert told.look(OVER, 90_000).kinds[8:] == ["recovered"]


def test_what_settles_as_over_is_told_as_over() -> None:
    told = Told(Rules(flapping=6))
    now = flap(told, 30)
    for later in range(int(now), int(now) + 7200, 60):
        told.look(OVER, later)

    assert told.kinds[6:] == ["flapping", "recovered"]


def test_what_began_to_go_on_and_off_while_it_was_muted_is_told_when_it_is_heard_again() -> None:
    told = Told(Rules(flapping=6))
    for turn in range(40):
        told.look(OPEN if turn % 2 == 0 else OVER, turn * 60, muted=turn < 20)
    for later in range(2400, 2400 + 7200, 60):
        told.look(OVER, later)

    assert told.kinds == ["flapping", "recovered"]


def test_what_went_on_and_off_only_while_it_was_muted_is_not_told_as_over() -> None:
    told = Told(Rules(flapping=6))
    for turn in range(20):
        told.look(OPEN if turn % 2 == 0 else OVER, turn * 60, muted=True)
    for later in range(1200, 1200 + 7200, 60):
        told.look(OVER, later, muted=True)

    assert told.look(OVER, 9000).news == []


def test_changes_that_are_kept_do_not_grow_without_end() -> None:
    told = Told(Rules(flapping=6))
    flap(told, 5000, every=1.0)

    assert told.alert is not None
    assert len(told.alert.changes) <= 200


def test_a_clock_that_was_set_back_by_a_day_does_not_silence_anything() -> None:
    told = Told(Rules(flapping=3))
    flap(told, 4, start=100_000)
    told.look(OPEN, 10_000).look(OVER, 10_100)

    assert told.kinds[-1] in ("recovered", "settled", "opened")
    assert not told.alert.flapping  # type: ignore[union-attr]


@pytest.mark.parametrize("number", [1, 2])
def test_a_messages_id_names_one_change_of_one_alert(number: int) -> None:
    ids = {
        Alert(subject, condition, n).id
        for subject in ("a", "b")
        for condition in (Condition.HELD, Condition.LATE)
        for n in (number, number + 1)
    }

    assert len(ids) == 8
    assert all(kind.value for kind in MessageKind)
