"""Uploaded files: what survives, what is refused, and what never becomes a path."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from shelfwise.errors import InputError, StorageError
from shelfwise.server.jobs import Job, Jobs, Limits, NoSuchJobError, TooManyJobsError

PATIENCE_S = 10


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def send(jobs: Jobs, name: str = "products.csv", *parts: bytes) -> Job:
    return asyncio.run(jobs.receive(name, "shelves", chunks(*(parts or (b"product\nRice\n",)))))


def finished(job, source, out, report):
    out.write_bytes(source.read_bytes())
    report(1, 1)
    return replace(job, status="done", predicted=1, rows_done=1)


def wait_until_ended(jobs: Jobs, job_id: str) -> Job:
    ends = time.monotonic() + PATIENCE_S
    while not (job := jobs.get(job_id)).ended:
        assert time.monotonic() < ends
        time.sleep(0.01)
    return job


def test_a_file_becomes_a_result(tmp_path):
    jobs = Jobs(tmp_path, finished)
    jobs.start()
    job = wait_until_ended(jobs, send(jobs).id)
    assert (job.status, job.predicted, job.bytes) == ("done", 1, 13)
    assert jobs.result(job.id).read_bytes() == b"product\nRice\n"


@pytest.mark.parametrize(
    "name", ["../../etc/cron.d/evil.csv", "C:\\x\\evil.csv", "a\x00b.csv", ".csv", "x/" * 200 + ".csv"]
)
def test_a_users_file_name_becomes_no_path(tmp_path, name):
    jobs = Jobs(tmp_path / "jobs", finished)
    jobs.start()
    job = wait_until_ended(jobs, send(jobs, name).id)
    assert {path.name for path in (tmp_path / "jobs" / job.id).iterdir()} == {"job.json", "input.csv", "result.parquet"}
    assert [path.name for path in tmp_path.iterdir()] == ["jobs"]
    assert job.file_name.isprintable()


@pytest.mark.parametrize("job_id", ["..", "../x", "", "0" * 31, "Z" * 32, "0" * 32])
def test_a_number_that_is_none_leads_nowhere(tmp_path, job_id):
    jobs = Jobs(tmp_path, finished)
    jobs.start()
    with pytest.raises(NoSuchJobError):
        jobs.folder(job_id)


def test_what_was_waiting_or_running_is_ended_by_the_next_service(tmp_path):
    killed = Jobs(tmp_path, finished)  # never started, so as a killed one leaves it
    running, waiting = send(killed), send(killed)
    replace(running, status="running", rows_done=1).save(tmp_path / running.id)
    jobs = Jobs(tmp_path, finished)
    jobs.start()
    assert wait_until_ended(jobs, running.id).status == "done"
    assert wait_until_ended(jobs, waiting.id).status == "done"
    jobs.stop(PATIENCE_S)
    last = Jobs(tmp_path, finished)
    last.start()
    assert [(job.id, job.status) for job in last.all()] == [(waiting.id, "done"), (running.id, "done")]


def test_two_services_do_not_work_in_one_folder(tmp_path):
    release, entered = threading.Event(), threading.Event()

    def slow(job, source, out, report):
        entered.set()
        release.wait(PATIENCE_S)
        return finished(job, source, out, report)

    first = Jobs(tmp_path, slow)
    first.start()
    job = send(first)
    assert entered.wait(PATIENCE_S)
    first.stop()  # its thread still works
    second = Jobs(tmp_path, finished)
    with pytest.raises(StorageError, match="another service"):
        second.start()
    release.set()
    first.stop(PATIENCE_S)
    assert not first.get(job.id).ended  # it was told to stop, and left the job to the next
    second.start()
    assert wait_until_ended(second, job.id).status == "done"


def test_a_job_that_fails_says_why_by_the_name_that_the_user_knows(tmp_path):
    def refuse(job, source, out, report):
        raise InputError(f"{source}: no column was recognised.")

    jobs = Jobs(tmp_path, refuse)
    jobs.start()
    job = wait_until_ended(jobs, send(jobs, "Spring list.csv").id)
    assert (job.status, job.error) == ("failed", "Spring list.csv: no column was recognised.")
    assert str(tmp_path) not in (tmp_path / job.id / "job.json").read_text()


def test_a_job_that_crashes_does_not_stop_the_next(tmp_path):
    def crash(job, source, out, report):
        if job.file_name == "bad.csv":
            raise RuntimeError("secret place")
        return finished(job, source, out, report)

    jobs = Jobs(tmp_path, crash)
    jobs.start()
    bad, good = send(jobs, "bad.csv"), send(jobs, "good.csv")
    assert wait_until_ended(jobs, good.id).status == "done"
    assert jobs.get(bad.id).status == "failed"
    assert "secret" not in jobs.get(bad.id).error


def test_too_large_is_refused_and_leaves_nothing(tmp_path):
    jobs = Jobs(tmp_path, finished, Limits(file_bytes=1 << 20))
    jobs.start()
    with pytest.raises(InputError, match="larger than 1 MiB"):
        send(jobs, "a.csv", b"x" * (1 << 19), b"x" * (1 << 19), b"x")
    with pytest.raises(InputError, match="empty"):
        send(jobs, "a.csv", b"")
    with pytest.raises(InputError, match="only CSV"):
        send(jobs, "a.exe", b"MZ")
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert jobs.all() == []


def test_too_many_are_refused_until_some_are_deleted(tmp_path):
    jobs = Jobs(tmp_path, finished, Limits(jobs=2))
    jobs.start()
    made = [wait_until_ended(jobs, send(jobs).id) for _ in range(2)]
    with pytest.raises(TooManyJobsError, match="Delete some"):
        send(jobs)
    jobs.delete(made[0].id)
    assert not (tmp_path / made[0].id).exists()
    send(jobs)


def test_a_damaged_state_file_is_left_alone(tmp_path):
    jobs = Jobs(tmp_path, finished)
    jobs.start()
    job = wait_until_ended(jobs, send(jobs).id)
    state = tmp_path / job.id / "job.json"
    whole = state.read_text()
    jobs.stop(PATIENCE_S)
    for damage in ("", "{", "[]", json.dumps({"id": "0" * 32}), whole.replace(job.id, "0" * 32)):
        state.write_text(damage)
        again = Jobs(tmp_path, finished)
        again.start()
        assert again.all() == []
        again.stop(PATIENCE_S)
        assert state.read_text() == damage


def test_what_a_killed_service_left_half_done_is_gone_with_the_next(tmp_path):
    jobs = Jobs(tmp_path, finished)
    jobs.start()
    job = wait_until_ended(jobs, send(jobs).id)
    jobs.stop(PATIENCE_S)
    cut_off = tmp_path / ("0" * 32)
    cut_off.mkdir()
    (cut_off / "input.csv").write_bytes(b"product\nRi")
    half_made = tmp_path / job.id / "download-x"
    half_made.mkdir()
    (half_made / "result.xlsx").write_bytes(b"PK")
    again = Jobs(tmp_path, finished)
    again.start()
    assert [each.id for each in again.all()] == [job.id]
    assert not cut_off.exists()
    assert {path.name for path in again.folder(job.id).iterdir()} == {"job.json", "input.csv", "result.parquet"}
