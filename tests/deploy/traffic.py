"""Mixed traffic with errors, for as long as it is wanted."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from fivescore.http.app import ROUTES
from fivescore.http.schema import description_of

EXAMPLES = [
    (path, description_of(endpoint).example)
    for method, path, endpoint in ROUTES
    if method == "POST"
]
"""Every trainers' route with a body that it takes."""


def pairs(number: int, count: int) -> list[dict[str, Any]]:
    """Responses to one prompt, never the same twice."""
    return [
        {"prompt": f"Question {number}?", "response": f"Answer {number} {place} " * (place + 1)}
        for place in range(count)
    ]


def mixed(http: httpx.Client, number: int) -> None:
    """Right, invalid and too long, on every route, known and unknown."""
    too_long = {"prompt": "A long story. " * 4000, "response": "The end."}
    http.post("/score", json={"pairs": pairs(number, 16)})
    http.post("/score", json=pairs(number, 1)[0])
    http.post("/score", json={"pairs": [*pairs(-number, 2), too_long, {"prompt": 1}]})
    http.post("/score", json={"pairs": [too_long], "truncate": "prompt_start"})
    http.post("/score", json={"pairs": "none"})
    http.post("/score", content=b"{")
    http.get("/nowhere")
    http.get("/health/ready")
    path, body = EXAMPLES[number % len(EXAMPLES)]
    http.post(path, json=body)


def large(http: httpx.Client, number: int) -> None:
    """Requests that fill the service; several at once are too many."""
    http.post("/score", json={"pairs": pairs(10**6 + number, 48)})


@contextmanager
def traffic(
    url: str, *kinds: Callable[[httpx.Client, int], object], key: str = "none"
) -> Iterator[None]:
    """Send each kind on a thread of its own until the end; a failure of one is the test's."""
    headers = {"Authorization": f"Bearer {key}"}
    stop = threading.Event()
    failures: list[BaseException] = []

    def send(kind: Callable[[httpx.Client, int], object]) -> None:
        try:
            with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
                for number in itertools.count():
                    kind(http, number)
                    if stop.wait(0.05):
                        return
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=send, args=(kind,), daemon=True) for kind in kinds]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not failures, failures
