"""What an unanswered request may have changed is uncertain, whatever became of its batch since."""

from __future__ import annotations

import pytest

from sync.errors import RequestError, Unavailable
from tests.state.fragile import Crash
from tests.state.world import World, applied_then


def test_a_part_that_was_never_sent_is_uncertain_where_the_whole_may_have_been_applied(world: World) -> None:
    world.run()
    world.sql("INSERT INTO vips SELECT 20 + i, 'new' || i || '@x.example', 'New', 1 FROM range(4) t(i)")
    world.desk.answers.extend([applied_then(Unavailable("cut")), RequestError("not now"), Crash()])
    with pytest.raises(Crash):
        world.run()

    world.digest = "mapping-2"  # so that the run is given up, and its second half never sent
    world.sql("DELETE FROM vips WHERE id >= 20")
    world.run()
    world.run()

    assert world.desk.members == world.source()
    assert world.in_step
