"""Who may import whom: each room imports only the rooms below it, and few know a given library."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "service" / "fivescore"
GROUND = frozenset({
    "settings", "types", "messages", "errors", "content", "endings", "policy", "turns",
})  # fmt: skip
CORE = GROUND | {"model", "telemetry"}
MAY_IMPORT: dict[str, frozenset[str]] = {
    "http/app": CORE | {"http", "http/protocols", "scoring"},
    "http/protocols": CORE | {"http", "scoring"},
    "http": CORE | {"scoring"},
    "scoring": CORE | {"engine"},
    "engine/vllm": CORE | {"engine", "exhaustion"},
    "engine": CORE,
    "labelling": GROUND | {"client", "data"},
    "evaluation": GROUND | {"client", "data", "model"},
    "training": GROUND | {"data", "model"},
    "client/integrations": GROUND | {"client"},
    "client": GROUND,
    "telemetry": GROUND | {"model"},
    "model": GROUND | {"data"},
    "data": frozenset({"errors"}),
    "settings": frozenset({"errors", "types"}),
    "policy": frozenset({"errors", "types", "endings", "turns"}),
    "turns": frozenset({"errors"}),
    "endings": frozenset(),
    "types": frozenset({"errors", "content", "messages"}),
    "messages": frozenset({"content"}),
    "content": frozenset(),
    "exhaustion": frozenset({"errors"}),
    "leaving": frozenset(),
    "streams": frozenset(),
    "errors": frozenset(),
}
"""Rooms are folders of the package, or single modules; ``http/app`` alone imports the protocols."""
ENTRANCES = frozenset({"cli", "serve", "check", "ray", "__main__"})
"""They may import everything, and nothing imports them except each other."""
WEB = frozenset({"http/app", "http", "http/protocols", "serve", "ray"})
LIBRARIES: dict[str, frozenset[str]] = {
    "vllm": frozenset({"engine/vllm"}),
    "fastapi": WEB,
    "starlette": WEB,
    "uvicorn": WEB,
    "httpx": frozenset({"client", "client/integrations", "evaluation"}),
    "torch": frozenset({"engine/vllm", "training", "client/integrations", "model"}),
    "ray": frozenset({"ray"}),
    "transformers": frozenset({"model", "training", "check"}),
}
"""The rooms that may import a library."""


def _imports(source: str) -> Iterator[str]:
    """The full name of each module or member that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                assert node.level == 0, "a relative import hides the room"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            case ast.Call(args=[ast.Constant(value=str(name)), *_]):
                if ast.unparse(node.func).endswith("import_module"):
                    yield name


def _room(name: str) -> str:
    """The room of a dotted name below ``fivescore``: the longest that the table knows."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        room = "/".join(parts[:length])
        if room in MAY_IMPORT or room in ENTRANCES:
            return room
    return parts[0]


FILES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file
    for file in sorted(PACKAGE.rglob("*.py"))
}


def _crossings(module: str, source: str) -> Iterator[str]:
    """The names in ``source`` that the room of ``module`` may not import."""
    room = _room(module)
    for name in _imports(source):
        library, _, inner = name.partition(".")
        if library == "fivescore" and inner not in ("", "__version__"):
            allowed = MAY_IMPORT[room] | {room} if room in MAY_IMPORT else None
            target = _room(inner)
            if target != room and (target in ENTRANCES or target not in (allowed or {target})):
                yield name
        elif room not in LIBRARIES.get(library, {room}):
            yield name


@pytest.mark.parametrize("module", [name for name in FILES if name != "__init__"])
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    room = _room(module)
    assert room in MAY_IMPORT or room in ENTRANCES, "a new room needs a line in the table"
    if room not in ENTRANCES:
        assert not list(_crossings(module, FILES[module].read_text()))


def test_no_rooms_import_each_other_in_a_circle() -> None:
    TopologicalSorter(MAY_IMPORT).prepare()


def test_opentelemetry_is_known_to_one_module() -> None:
    knowing = [
        module for module, file in FILES.items() if "opentelemetry" in _libraries(file.read_text())
    ]
    assert knowing == ["telemetry.tracing"]


def _libraries(source: str) -> set[str]:
    return {name.partition(".")[0] for name in _imports(source)}


def test_beside_the_package_only_the_engine_s_benchmark_imports_vllm() -> None:
    folders = ("loadtest", "deploy", "demo")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    importing = [str(f.relative_to(ROOT)) for f in files if "vllm" in _libraries(f.read_text())]
    assert importing == ["loadtest/engine_limit.py"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("scoring.scorer", "from fivescore.http.body import parse_json"),
        ("scoring.scorer", "from fivescore.engine.vllm import engine"),
        ("http.routes", "def late():\n    from fivescore.http.protocols import vllm"),
        ("http.routes", "import fivescore.training.run"),
        ("client.call", "from fivescore.model.manifest import ATTRIBUTES"),
        ("telemetry.logging", "import fivescore.serve"),
        ("engine.supervisor", "from vllm.config import VllmConfig"),
        ("engine.fake", "importlib.import_module('vllm.v1')"),
        ("scoring.window", "import starlette.requests"),
        ("client.client", "import torch"),
    ],
)
def test_a_crossing_is_found(module: str, source: str) -> None:
    assert len(list(_crossings(module, source))) == 1
