"""With another uvicorn the service says in one line what does not fit, or works."""

from __future__ import annotations

import ast
import functools
import importlib
from pathlib import Path
from typing import Any

import pytest

from fivescore.cli import main
from fivescore.errors import ConfigurationError
from fivescore.http import connection, uvicorn_internals
from fivescore.http.uvicorn_internals import ATTRIBUTES, METHODS, HttpToolsProtocol, check

EACH_METHOD = [(owner, name) for owner, names in METHODS.items() for name in names]
EACH_ATTRIBUTE = [(owner, name) for owner, names in ATTRIBUTES.items() for name in names]


def refusal() -> str:
    with pytest.raises(ConfigurationError) as caught:
        check()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(("owner", "name"), EACH_METHOD)
def test_a_method_that_is_missing_or_other_is_named(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, lambda self, another, parameter: None)
    assert f"{owner.__name__}.{name} has other parameters" in refusal()
    monkeypatch.delattr(owner, name)
    assert f"{owner.__name__} has no {name}" in refusal()


@pytest.mark.parametrize(("owner", "name"), EACH_ATTRIBUTE)
def test_an_attribute_that_is_missing_is_named(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = "on_message_begin" if owner is HttpToolsProtocol else "__init__"
    make = getattr(owner, last)

    @functools.wraps(make)
    def without(self: object, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        vars(self).pop(name)

    monkeypatch.setattr(owner, last, without)
    assert f"has no {name}" in refusal() or f"no attribute '{name}'" in refusal()


@pytest.mark.parametrize(
    "name",
    [
        "protocols.http.flow_control.FlowControl",
        "protocols.http.httptools_impl.HttpToolsProtocol",
        "protocols.http.httptools_impl.RequestResponseCycle",
        "server.Server",
        "server.ServerState",
    ],
)
def test_a_class_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(f"uvicorn.{name}")
    with pytest.raises(ConfigurationError, match=f"cannot import name '{name.split('.')[-1]}'"):
        importlib.reload(uvicorn_internals)


def test_the_service_does_not_start_and_prints_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(HttpToolsProtocol, "on_body")
    assert main(["serve", "--backend", "fake", "--port", "0"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("fivescore: error: uvicorn 0.")
    assert "HttpToolsProtocol has no on_body" in last


def test_every_part_that_a_connection_uses_is_listed() -> None:
    (definition,) = (
        node
        for node in ast.parse(Path(connection.__file__).read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "Connection"
    )
    used = {node.name for node in definition.body if isinstance(node, ast.FunctionDef)} | {
        node.attr
        for node in ast.walk(definition)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()")
    }
    listed = {*METHODS[HttpToolsProtocol], *ATTRIBUTES[HttpToolsProtocol]}
    inherited = used & {*dir(HttpToolsProtocol), *ATTRIBUTES[HttpToolsProtocol]}
    assert inherited - {"__init__"} <= listed
    assert listed <= used
