"""When a watchdog may be fed: whatever happens to agent and acknowledgements, the promise is kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.hostagent.core.feeding import Feeding

RULE = Feeding(self_fence_s=40, device_s=20)


def test_it_is_fed_for_as_long_as_the_device_would_still_keep_the_promise() -> None:
    assert RULE.may_feed(100.0, 100.0)
    assert RULE.may_feed(120.0, 100.0)
    assert not RULE.may_feed(120.1, 100.0)
    assert not RULE.may_feed(0.0, None)


def test_an_acknowledgement_that_was_long_under_way_counts_from_the_sending() -> None:
    assert not RULE.may_feed(now=130.0, sent=100.0)


def test_times_that_would_reset_sound_machines_are_refused() -> None:
    assert RULE.fault() == ""
    assert "self_fence_s must be at least 26" in Feeding(self_fence_s=25, device_s=20).fault()


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 30)), max_size=60),
    st.floats(0.25, 5),
)
def test_the_machine_is_dead_by_the_time_that_was_promised(beats: list[tuple[float, float]], pause: float) -> None:
    """Heartbeats with the time since the one before, each acknowledged after a delay; the agent looks every `pause`."""
    sent, arrivals = 0.0, []
    for gap, delay in beats:
        sent += gap
        arrivals.append((sent + delay, sent))
    arrivals.sort()
    now, fed, known = 0.0, None, None
    last = max((when for when, _ in arrivals), default=0.0)
    while now < last + 100:
        while arrivals and arrivals[0][0] <= now:
            known = max(known or 0.0, arrivals.pop(0)[1])
        if fed is not None and now >= fed + RULE.device_s:
            break
        if RULE.may_feed(now, known):
            fed = now
        now += pause
    if fed is not None:
        assert known is not None
        assert fed + RULE.device_s <= known + RULE.self_fence_s
