"""A job of ``fivescore score`` on a fleet without sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fivescore.client import AsyncRewardClient
from fivescore.client.served import Served
from fivescore.data.inputs import find
from fivescore.labelling.output import output_for
from fivescore.labelling.rows import Choice
from fivescore.labelling.run import description
from fivescore.labelling.score import Asking, Job, Scored, Shape, score_file
from tests.unit.client.fakes import Fleet, Hurry
from tests.unit.data.files import write

Json = dict[str, Any]
SERVED = Served(("http://rm",), "m", {"reward": {}}, {}, "0" * 64)
ALL = Choice()
SHAPE = Shape(("helpfulness", "verbosity"))
"""The attributes of ``Fleet``'s scores."""


@dataclass
class Command:
    """``fivescore score SOURCE -o TARGET``, run as often as ``run`` is called."""

    source: Path
    target: str
    fleet: Fleet = field(default_factory=Fleet)
    served: Served = SERVED
    at_the_end: Served | None = None
    """What the servers serve when all rows are scored, if it is something else."""
    choice: Choice = ALL
    shape: Shape = SHAPE
    options: Json = field(default_factory=dict)
    keep_going: bool = False

    async def run(self, **changes: Any) -> Scored:
        one = replace(self, **changes)
        source = find(one.source)
        job = Job(
            source,
            output_for(str(one.target), source),
            description(one.served, one.options),
            one.choice,
            one.shape,
            one.keep_going,
        )
        client = AsyncRewardClient(
            "http://rm", transport=one.fleet, clock=Hurry(), deadline_seconds=0
        )
        return await score_file(
            job, Asking(client, one.options, 8, 2, lambda _: one.at_the_end or one.served, 0.0)
        )

    @property
    def asked(self) -> list[str]:
        """The responses that the fleet was asked for."""
        return [response for request in self.fleet.requests for response in request.responses]


def command(folder: Path, rows: list[Json], target: str = "out.jsonl", **options: Any) -> Command:
    """A command whose input, ``in.jsonl`` in ``folder``, has these rows."""
    return Command(write(folder / "in.jsonl", rows), str(folder / target), **options)


def read(file: Path | str) -> list[Json]:
    return [json.loads(line) for line in Path(file).read_bytes().splitlines()]


def files(folder: Path) -> set[str]:
    """The names of the files in a folder, beside the input."""
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()} - {
        "in.jsonl"
    }
