"""Each crawl in a fresh process, the handlers of a case one after the other, all of it again in each round.

So whatever else the machine does meets all of them alike; compared is only what ran in the same round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.cases import Case
from bench.handlers import NULL, Contender
from bench.servers import Seen, Servers

LIMIT = 150.0
"""Seconds for one crawl."""


@dataclass(frozen=True, slots=True)
class Run:
    """One crawl. `seen` is None for the null handler. `problem` says why its figures are worth nothing."""

    case: str
    handler: str
    round: int
    cost: Mapping[str, Any] = field(default_factory=dict)
    seen: Seen | None = None
    problem: str | None = None


def runs(
    servers: Servers,
    cases: Sequence[Case],
    contenders: Sequence[Contender],
    *,
    rounds: int,
    settings: Mapping[str, Any],
    told: Callable[[Run], None],
) -> Iterator[Run]:
    """All of them, as they end."""
    for number in range(rounds):
        for case in cases:
            speaking = [contender for contender in contenders if case.door in contender.speaks]
            turn = number % len(speaking)
            for contender in speaking[turn:] + speaking[:turn]:
                run = run_one(servers, case, contender, number, settings)
                told(run)
                yield run


def job(servers: Servers, case: Case, contender: Contender, settings: Mapping[str, Any]) -> str:
    """What `bench.crawl` reads."""
    own = contender.h2_settings if case.door.name == "H2" else {}
    return json.dumps(
        {
            "case": {name: getattr(case, name) for name in case.__slots__} | {"door": case.door.name},
            "handler": contender.path,
            "port": servers.port(case.door, slow=bool(case.round_trip)),
            "settings": {**_room(case), **own, **settings},
        }
    )


def environment(servers: Servers) -> dict[str, str]:
    """For a crawl."""
    return {**os.environ, "SSL_CERT_FILE": str(servers.trust), "PYTHONHASHSEED": "0"}


def run_one(servers: Servers, case: Case, contender: Contender, number: int, settings: Mapping[str, Any]) -> Run:
    """One crawl, with what the server saw of it."""
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "bench.crawl"],
            input=job(servers, case, contender, settings),
            env=environment(servers),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        servers.seen(0)
        return Run(case.name, contender.name, number, problem=f"not done in {LIMIT:.0f} s")
    if ended.returncode or not ended.stdout.strip():
        servers.seen(0)
        return Run(case.name, contender.name, number, problem=f"{ended.stderr.strip()[-300:]}")
    cost = json.loads(ended.stdout.splitlines()[-1])
    seen = None if contender is NULL else servers.seen(cost["warm_up"] + case.pages)
    return Run(case.name, contender.name, number, cost, seen, _problem(case, cost, seen))


def _room(case: Case) -> dict[str, Any]:
    """As many connections as a case has hosts; ours would close the oldest of them else."""
    return {"POOLPLUS_MAX_CONNECTIONS": case.hosts + case.concurrency} if case.hosts > 200 else {}


def _problem(case: Case, cost: Mapping[str, Any], seen: Seen | None) -> str | None:
    if cost["wrong"]:
        return f"{cost['wrong']} wrong bodies"
    if cost["failures"]:
        failure, _ = max(cost["failures"].items(), key=lambda entry: entry[1])
        return f"{sum(cost['failures'].values())} requests failed, as with {failure}"
    if cost["good"] != case.pages:
        return f"{cost['good']} of {case.pages} pages"
    if seen is None:
        return None
    asked = cost["warm_up"] + case.pages
    if seen.requests < asked:
        return f"the server saw {seen.requests} of {asked} requests"
    if seen.uploaded < asked * case.upload:
        return f"the server got {seen.uploaded} of {asked * case.upload} bytes that were to be uploaded"
    return None
