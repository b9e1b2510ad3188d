from __future__ import annotations

import os
import signal

import pytest

from shelfwise import processes
from shelfwise.modeling.job import StopRequest
from shelfwise.pipelines.stopping import stopping_on_signals


@pytest.fixture
def second_of_four(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


def test_a_process_that_no_launcher_started_is_alone(monkeypatch):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")  # a cluster's own, without a rank
    assert (processes.count(), processes.rank(), processes.local_rank(), processes.local_count()) == (1, 0, 0, 1)
    assert processes.is_first()


def test_a_launcher_numbers_its_processes(second_of_four):
    assert (processes.count(), processes.rank(), processes.local_rank(), processes.local_count()) == (4, 1, 1, 2)
    assert not processes.is_first()


def test_a_second_signal_does_not_end_one_of_several_processes_at_once(second_of_four):
    stop, notes = StopRequest(), []
    with stopping_on_signals(stop, notes.append):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested
    assert notes == ["SIGTERM: stopping after this step"]


def test_a_second_signal_ends_a_single_process_at_once():
    notes = []
    with pytest.raises(KeyboardInterrupt), stopping_on_signals(StopRequest(), notes.append):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert notes == ["SIGTERM: stopping after this step; once more to stop at once"]
