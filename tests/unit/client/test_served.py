"""What several servers serve is one model, by its name, its manifest and its files' digest."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from fivescore.client import served
from fivescore.errors import ConfigurationError
from fivescore.model.manifest import Manifest

Json = dict[str, Any]


def test_the_members_of_the_manifest_are_known() -> None:
    assert set(served.MANIFEST) == set(Manifest.model_fields)


def at(monkeypatch: pytest.MonkeyPatch, **manifests: Json) -> served.Served:
    def get(http: httpx.Client, path: str) -> Json:
        if path == "/v1/models":
            return {"data": [{"id": "m"}]}
        return manifests[http.base_url.host] if path == "/manifest" else {"vllm": "1"}

    monkeypatch.setattr(served, "_get", get)
    return served.served_at(",".join(f"http://{host}" for host in manifests), 0.0)


def test_the_facts_of_a_server_are_no_part_of_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    found = at(monkeypatch, a={"outputs": 5, "proved": True, "digest": "1" * 64})
    assert (found.manifest, found.digest, found.model) == ({"outputs": 5}, "1" * 64, "m")
    assert found.identity == {"model": "m", "manifest": {"outputs": 5}}


@pytest.mark.parametrize("other", ["1" * 64, None])
def test_replicas_have_the_digest_that_one_of_them_knows(
    monkeypatch: pytest.MonkeyPatch, other: str | None
) -> None:
    found = at(monkeypatch, a={"outputs": 5, "digest": other}, b={"outputs": 5, "digest": "1" * 64})
    assert (found.urls, found.digest) == (("http://a", "http://b"), "1" * 64)


@pytest.mark.parametrize("other", [{"outputs": 5, "digest": "2" * 64}, {"outputs": 6}])
def test_servers_of_different_models_are_refused(
    monkeypatch: pytest.MonkeyPatch, other: Json
) -> None:
    with pytest.raises(ConfigurationError, match="http://a and http://b serve different models"):
        at(monkeypatch, a={"outputs": 5, "digest": "1" * 64}, b=other)
