"""What each of several processes does in `test_distributed`, started by torchrun with one of these:

RUNS.json            the runs of a list, one after the other in one group
--fail-at STEP ...   `shelfwise ...`, in which the second process alone fails after a step
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from shelfwise import cli, processes
from shelfwise.config import parse
from shelfwise.errors import InterruptedRunError, WorkError
from shelfwise.modeling import distributed
from shelfwise.pipelines import finetune
from shelfwise.pipelines.train import train


def in_the_second_process(step: int | None, do: Callable[[], None]) -> None:
    """Do something there when it reports a step of its next run."""
    make = finetune._job

    def job(*given):
        made = make(*given)

        def report(progress):
            before(progress)
            if progress.step == step and processes.rank() == 1:
                do()

        before = made.report
        object.__setattr__(made, "report", report)
        finetune._job = make
        return made

    finetune._job = job


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fail() -> None:
    raise WorkError("the second process has failed")


def run_all(runs: list[dict]) -> None:
    for run in runs:
        if run["stop_at"]:
            in_the_second_process(run["stop_at"], terminate)
        try:
            config = None if run["resume"] else parse(run["config"], run["out"])
            train(config, Path(run["out"]), resume=run["resume"], device="cpu")
        except InterruptedRunError:
            assert run["stop_at"], "nobody has asked for an end"


if __name__ == "__main__":
    if sys.argv[1] == "--fail-at":
        in_the_second_process(int(sys.argv[2]), fail)
        sys.exit(cli.run(sys.argv[3:]))
    with distributed.Joined("cpu"):
        run_all(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
