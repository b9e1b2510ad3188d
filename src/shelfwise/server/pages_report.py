"""*Report*: the run's evaluation, served as it is. *Monitor*: what came in, and whether to train again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response

from shelfwise import artifact
from shelfwise.pipelines.evaluation import REPORT_HTML
from shelfwise.server.contract import ModelInfo
from shelfwise.server.errors import ApiError
from shelfwise.server.monitor import CONFIDENCE_BINS, Seen
from shelfwise.server.monitor_people import People
from shelfwise.server.monitor_reference import Reference
from shelfwise.server.monitor_rules import Verdict, judge
from shelfwise.server.pages_state import PagesState
from shelfwise.server.pages_view import HEADERS, page, problem

MAX_REPORT_BYTES = 64 << 20
DAYS = (1, 7, 28)
NOVEL = 20  # new words and brands shown
GROUPS = 12  # categories or types shown
_HASH = re.compile(r"'sha256-[A-Za-z0-9+/=]{44}'")


def add_routes(router: APIRouter, app: FastAPI, state: PagesState) -> None:
    """Add the pages."""

    @router.get("/report")
    async def report(request: Request, model: str = "") -> Response:
        chosen, models = _chosen(app, model), app.state.service.models()
        path = await run_in_threadpool(_report_of, app, chosen)
        return page(request, "report.html", models=models, chosen=chosen, there=path is not None)

    @router.get("/report/page")
    async def report_page(request: Request, model: str = "") -> Response:
        path = await run_in_threadpool(_report_of, app, _chosen(app, model))
        if path is None:
            return problem(request, 404, "Not here.", "This run was not evaluated.")
        text = await run_in_threadpool(path.read_text, encoding="utf-8")
        return HTMLResponse(text, headers={**HEADERS, "Content-Security-Policy": _report_policy(text)})

    @router.get("/monitor")
    async def monitor(request: Request, model: str = "", days: int = 7) -> Response:
        chosen, chosen_days = _chosen(app, model), days if days in DAYS else 7
        if chosen is None:
            return page(request, "loading.html")
        seen = await run_in_threadpool(state.traffic(chosen.name).seen, 24 * chosen_days)
        reference = state.reference(chosen.name)
        people = await run_in_threadpool(People.of, app.state.store, reference.trained_at_s)
        shown = Monitored.of(seen, people, reference)
        return page(
            request,
            "monitor.html",
            models=app.state.service.models(),
            chosen=chosen,
            days=chosen_days,
            all_days=DAYS,
            shown=shown,
            people=people,
        )


def _chosen(app: FastAPI, name: str) -> ModelInfo | None:
    """The model that is asked for, else the default one; None while they are loaded."""
    models: tuple[ModelInfo, ...] = app.state.service.models()
    return next((model for model in models if model.name == name), models[0] if models else None)


def _report_of(app: FastAPI, model: ModelInfo | None) -> Path | None:
    if model is None:
        return None
    try:
        run: Path = app.state.service.run(model.name)
    except ApiError:
        return None
    path = run / artifact.EVALUATION / REPORT_HTML
    return path if path.is_file() and path.stat().st_size <= MAX_REPORT_BYTES else None


def _report_policy(text: str) -> str:
    """The policy that the report itself names, and that it stands in no frame but ours."""
    script = " ".join(sorted(set(_HASH.findall(text[:4_096])))) or "'none'"
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {script}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """One group of the products, now and among the held-out ones."""

    name: str
    now: float  # share in [0, 1]
    then: float | None
    count: int


@dataclass(frozen=True, slots=True)
class Monitored:
    """What the page shows."""

    verdict: Verdict
    seen: Seen
    reference: Reference
    groups: tuple[Pair, ...]
    confidence: tuple[Pair, ...]
    words: tuple[tuple[str, int], ...]
    brands: tuple[tuple[str, int], ...]
    busiest: int  # products of the busiest step of `steps`
    steps: tuple[tuple[float, int, int], ...]  # (begin in seconds since 1970, products, accepted)

    @classmethod
    def of(cls, seen: Seen, people: People, reference: Reference) -> Monitored:
        """Hold traffic against its reference."""
        total, expected = seen.total, reference.expected
        groups = reference.groups(total.types)
        size = max(1, len(seen.by_hour) // 28)  # hours a bar, so that a month has as many bars as a day
        parts = [seen.by_hour[i : i + size] for i in range(0, len(seen.by_hour), size)]
        steps = tuple((p[0][0], sum(h.products for _, h in p), sum(h.accepted for _, h in p)) for p in parts)
        names = [f"{10 * i}–{10 * i + 10}%" for i in range(CONFIDENCE_BINS)]
        then = dict(zip(names, expected.confidence, strict=True)) if expected.confidence else None
        return cls(
            verdict=judge(total, groups, expected, people.decided),
            seen=seen,
            reference=reference,
            groups=_pairs(groups, expected.groups, GROUPS),
            confidence=_pairs(dict(zip(names, total.confidence, strict=True)), then, None),
            words=tuple(total.words.most_common(NOVEL)),
            brands=tuple(total.brands.most_common(NOVEL)),
            busiest=max((products for _, products, _ in steps), default=0),
            steps=steps,
        )


def _pairs(now: Mapping[str, int], then: Mapping[str, int] | None, most: int | None) -> tuple[Pair, ...]:
    """Shares side by side: the largest `most`, or all in their order."""
    sum_now, before = sum(now.values()) or 1, then or {}
    sum_before = sum(before.values())
    pairs = [
        Pair(
            name, now.get(name, 0) / sum_now, before.get(name, 0) / sum_before if sum_before else None, now.get(name, 0)
        )
        for name in dict.fromkeys((*now, *before))
    ]
    if most is None:
        return tuple(pairs)
    return tuple(sorted(pairs, key=lambda pair: -max(pair.now, pair.then or 0))[:most])
