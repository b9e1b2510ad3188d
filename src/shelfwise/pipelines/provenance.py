"""Where an evaluation's numbers come from: what leaks, the machine, and the commands that make them again."""

from __future__ import annotations

import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

from shelfwise import __version__, artifact, processes
from shelfwise.data.leakage import Leakage, LeakageFinding
from shelfwise.pipelines.evaluation import LeakageNote

LEAKAGE_EXAMPLES = 3
# Distributions by the module that shows that they were used.
_REPORTED_PACKAGES = {
    "torch": "torch",
    "transformers": "transformers",
    "peft": "peft",
    "numpy": "numpy",
    "scikit-learn": "sklearn",
}


def versions() -> dict[str, str]:
    """Of Shelfwise, Python and those packages that had a part in it."""
    loaded = {name: version(name) for name, module in _REPORTED_PACKAGES.items() if module in sys.modules}
    return {"shelfwise": __version__, "python": platform.python_version(), **loaded}


def hardware(device: str | None) -> str:
    """The machine in words: its processor, and the GPU that was used.

    Args:
        device: where a language model answered ("auto", "cpu", "cuda:1"); None where none did.
    """
    # Asking for the GPU must not load torch where nothing needed it: it takes seconds.
    if device is None or "torch" not in sys.modules:
        return _processor()
    from shelfwise.modeling.hardware import gpu_name

    return "; ".join(filter(None, (_processor(), gpu_name(device))))


def _processor() -> str:
    name = _linux_processor() or platform.processor() or platform.machine() or "unknown processor"
    usable = processes.usable_cores()
    return f"{name}, {usable} logical core{'s' if usable > 1 else ''}"


def _linux_processor(path: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name where Linux tells it; `platform.processor` is empty there."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def command(run: str, trained_on: str, options: dict[str, str | bool]) -> str:
    """The lines that make a run and its evaluation again, from a folder that holds the catalogue and the run's folder.

    The run's configuration is settled and its split saved, so that both together repeat it.

    Args:
        run: the run folder's name; what is made again goes beside it, for a finished run is never written over.
        trained_on: the name of the catalogue that it was trained on.
        options: of `shelfwise evaluate`, by name; those that are False are left out.
    """
    again = f"{run}-again"
    folder = Path(run)
    train = ["train", trained_on, "--config", str(folder / artifact.CONFIG), "--split", str(folder / artifact.SPLIT)]
    evaluate = ["evaluate", again]
    for name, value in options.items():
        if value is not False:
            evaluate += [f"--{name}"] if value is True else [f"--{name}", value]
    lines = ([*train, "--out", again], evaluate)
    return "\n".join(shlex.join(["shelfwise", *line]) for line in lines)


def leakage_notes(leakage: Leakage) -> tuple[LeakageNote, ...]:
    """What the leakage gate found, for the report; empty where it found nothing."""
    return tuple(
        LeakageNote(
            kind=finding.kind,
            title=_title(finding),
            count=finding.count,
            serious=finding.severity == "problem",
            examples=tuple(f"{example.source}: {example.what}" for example in finding.examples[:LEAKAGE_EXAMPLES]),
        )
        for finding in leakage.findings
    )


def _title(finding: LeakageFinding) -> str:
    """What the count counts; follows it in a line."""
    share = f"{finding.count / finding.of:.1%} of {finding.of:,}"
    where = finding.where.replace("_", "-")
    earlier = "training or validation" if finding.where == "test" else "training"
    titles = {
        "same_product": f"{where} products whose name and type {earlier} has too ({share})",
        "near_duplicate": f"{where} products that differ from one of {earlier} in little more than a size or a word "
        f"({share})",
        "type_in_text": f"products whose {where} holds the words of their type ({share})",
        "type_from_column": f"held-out products whose type can be told from their {where} alone ({share})",
    }
    return titles[finding.kind]
