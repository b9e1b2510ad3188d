"""Killed at any moment, a store has lost nothing that was acknowledged."""

import pytest

from support.kills import Kills


@pytest.mark.parametrize("kills", [20])
def test_no_acknowledged_decision_is_lost_or_doubled_when_the_process_is_killed(url, kills):
    record = Kills(url)
    for seed in range(kills if not url.startswith("postgresql") else kills // 4):
        record.kill_once(seed)
    assert record.acknowledged
    assert record.origins
