"""``POST /score``: forms, order, options, errors in place."""

from __future__ import annotations

from pathlib import Path

import pytest

from fivescore.model.manifest import ATTRIBUTES
from tests.integration.service import PAIR, Json, Service, assert_problem, serving, strict
from tests.unit.engines import RecordingEngine

NUMBERS = {"reward", "tokens", "cached_tokens", "truncated"}


async def test_a_bare_pair_gets_its_scores_bare(service: Service) -> None:
    response = await service.score(PAIR)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    body = strict(response)
    assert body.keys() == {"model", *ATTRIBUTES, *NUMBERS}
    assert body["model"] == "fivescore-demo"
    weights = dict(zip(ATTRIBUTES, (0.3, 0.74, 0.46, 0.47, -0.33), strict=True))
    expected = sum(weight * body[name] for name, weight in weights.items())
    assert body["reward"] == pytest.approx(expected)
    assert len({body[name] for name in ATTRIBUTES}) == 5
    assert body["truncated"] is False


async def test_a_batch_gets_the_same_scores_in_its_order(service: Service) -> None:
    pairs = [{"prompt": f"Q{n % 3}", "response": "word " * n} for n in range(100)]
    alone = [strict(await service.score(pair)) for pair in pairs[:10]]
    response = await service.score({"pairs": pairs})
    body = strict(response)
    assert [{"model": body["model"], **entry} for entry in body["scores"][:10]] == alone
    assert body["usage"] == {
        "pairs": 100,
        "tokens": sum(entry["tokens"] for entry in body["scores"]),
        "cached_tokens": 0,
        "failed": 0,
    }
    tokens = [entry["tokens"] for entry in body["scores"]]
    assert tokens == sorted(tokens)
    assert tokens[-1] > tokens[0] + 90


async def test_forms_mix_in_one_batch_and_mean_the_same(service: Service) -> None:
    turns = [{"role": "user", "content": PAIR["prompt"]}]
    with_system = [{"role": "system", "content": "Be kind."}, *turns]
    forms = ({**PAIR, "prompt": turns}, {**PAIR, "prompt": with_system}, {"token_ids": [1, 2, 3]})
    text, messages, other, ids = await service.scores(PAIR, *forms)
    assert text == messages
    assert other["tokens"] > text["tokens"]
    assert ids["tokens"] == 3


async def test_each_bad_pair_has_its_error_in_its_place(service: Service) -> None:
    bad: list[tuple[object, str]] = [
        ({"prompt": "Q"}, "invalid_pair"),
        ("text", "invalid_pair"),
        (None, "invalid_pair"),
        ({"prompt": "Q", "response": 1}, "invalid_pair"),
        ({"prompt": "Q", "response": "A", "extra": 1}, "invalid_pair"),
        ({"token_ids": []}, "invalid_pair"),
        ({"token_ids": [6144]}, "invalid_pair"),
        ({"token_ids": [2**70]}, "invalid_pair"),
        ({"token_ids": [1] * 4097}, "too_long"),
        ({"prompt": [{"role": "assistant", "content": "x"}], "response": "A"}, "invalid_pair"),
    ]
    pairs = [item for pair, _ in bad for item in (PAIR, pair)] + [PAIR]
    response = await service.score({"pairs": pairs})
    body = strict(response)
    assert response.status_code == 200
    good, errors = body["scores"][::2], body["scores"][1::2]
    assert all(entry == good[0] and "reward" in entry for entry in good)
    assert [entry["error"]["code"] for entry in errors] == [code for _, code in bad]
    assert all(entry.keys() == {"error"} and entry["error"]["detail"] for entry in errors)
    assert body["usage"]["pairs"] == len(pairs)
    assert body["usage"]["failed"] == len(bad)
    assert body["usage"]["tokens"] == len(good) * good[0]["tokens"]


@pytest.mark.parametrize(
    "pair",
    [
        '{"prompt": "\\ud83d", "response": "A"}',
        '{"prompt": "Q", "response": "cut \\ud83d"}',
        '{"prompt": [{"role": "user", "content": "\\ude00"}], "response": "A"}',
        '{"prompt": "Q", "response": "A", "\\ud83d": 1}',
        '{"prompt": [{"role": "user", "content": "Q", "\\ud83d": 1}], "response": "A"}',
        '{"prompt": [{"role": "\\ud83d", "content": "Q"}], "response": "A"}',
    ],
)
async def test_half_a_surrogate_pair_fails_its_own_pair_alone(service: Service, pair: str) -> None:
    good = '{"prompt": "Q", "response": "A"}'
    response = await service.http.post("/score", content=f'{{"pairs": [{good}, {pair}, {good}]}}')
    assert response.status_code == 200, response.text
    first, error, last = strict(response)["scores"]
    assert error["error"]["code"] == "invalid_pair"
    assert "reward" in first
    assert first == last


@pytest.mark.parametrize(
    ("pair", "code", "facts"),
    [
        ({"prompt": "Q"}, "invalid_pair", {}),
        ({"prompt": "Q", "response": None}, "invalid_pair", {}),
        ({"token_ids": [6144]}, "invalid_pair", {}),
        ({"token_ids": [1] * 4097}, "too_long", {"limit": 4096, "tokens": 4097}),
    ],
)
async def test_a_bare_pair_that_fails_is_a_problem_with_its_numbers(
    service: Service, pair: Json, code: str, facts: Json
) -> None:
    assert facts.items() <= assert_problem(await service.score(pair), 422, code).items()


async def test_an_empty_batch_is_answered(service: Service) -> None:
    body = strict(await service.score({"pairs": []}))
    assert body["scores"] == []
    assert body["usage"] == {"pairs": 0, "tokens": 0, "cached_tokens": 0, "failed": 0}


async def test_weights_combine_another_reward(service: Service) -> None:
    weights = {"helpfulness": 2.0, "verbosity": -0.5}
    plain, weighted = await service.scores(PAIR), await service.scores(PAIR, weights=weights)
    assert {name: weighted[0][name] for name in ATTRIBUTES} == {
        name: plain[0][name] for name in ATTRIBUTES
    }
    expected = 2.0 * plain[0]["helpfulness"] - 0.5 * plain[0]["verbosity"]
    assert weighted[0]["reward"] == pytest.approx(expected)
    bare = strict(await service.score({**PAIR, "weights": weights, "timeout_seconds": 60}))
    assert bare["reward"] == weighted[0]["reward"]


@pytest.mark.parametrize(
    ("weights", "told"),
    [({"humor": 1.0}, "humor"), ({}, "empty"), ({"helpfulness": "x"}, "weights.helpfulness")],
)
async def test_weights_that_do_not_fit_fail_the_request(
    service: Service, weights: Json, told: str
) -> None:
    response = await service.score({"pairs": [PAIR], "weights": weights})
    assert told in assert_problem(response, 422, "invalid_request")["detail"]


async def test_a_scalar_model_answers_a_reward_without_attributes() -> None:
    async with serving(options={"outputs": 1}, manifest="scalar") as service:
        (entry,) = await service.scores(PAIR)
        assert entry.keys() == NUMBERS
        response = await service.score({**PAIR, "weights": {"helpfulness": 1}})
        assert "scalar" in assert_problem(response, 422, "invalid_request")["detail"]


async def test_truncation_is_asked_for_and_told() -> None:
    long = {"token_ids": list(range(20))}
    async with serving(max_tokens=16) as service:
        (refused,) = await service.scores(long)
        assert refused["error"]["code"] == "too_long"
        assert (refused["error"]["limit"], refused["error"]["tokens"]) == (16, 20)
        cut, short = await service.scores(long, {"token_ids": [7]}, truncate="prompt_start")
        assert (cut["truncated"], cut["tokens"]) == (True, 16)
        assert (short["truncated"], short["tokens"]) == (False, 1)


@pytest.mark.parametrize(
    ("fault", "code"), [("fail_every", "engine_error"), ("nan_every", "non_finite")]
)
async def test_a_pair_that_fails_in_the_engine_leaves_its_neighbours_alone(
    fault: str, code: str
) -> None:
    pairs = [{"prompt": "Q", "response": f"A{n}"} for n in range(5)]
    async with serving(options={fault: 2}) as service:
        body = strict(await service.score({"pairs": pairs}))
        codes = [entry.get("error", {}).get("code") for entry in body["scores"]]
        assert codes == [None, code, None, code, None]
        assert all("reward" in entry for entry in body["scores"][::2])
        assert body["usage"]["failed"] == 2
        assert_problem(await service.score(PAIR), 500, code)


async def test_a_priority_reaches_the_engine_on_every_protocol_and_a_wrong_one_is_refused() -> None:
    engine = RecordingEngine()
    async with serving(engine) as service:
        for route, body in (("/score", PAIR), ("/predict", {"inputs": "a text"})):
            ranks = []
            for priority in ("5", "0", "-5"):
                response = await service.http.post(
                    route, json=body, headers={"X-Priority": priority}
                )
                assert response.status_code == 200, response.text
                ranks.append(engine.priorities[-1])
            assert ranks == sorted(ranks, reverse=True)
            assert len(set(ranks)) == 3
            response = await service.http.post(route, json=body, headers={"X-Priority": "soon"})
            assert_problem(response, 422, "invalid_request")
            assert "X-Priority" in response.json()["detail"]


async def test_a_principle_comes_from_the_pair_or_the_request_or_the_setting(
    tmp_path: Path,
) -> None:
    manifest = tmp_path / "reward.json"
    manifest.write_text(
        '{"version": 2, "outputs": 5, "reward": {"output": 0},'
        ' "prompt": {"principle": "Does it have {principle}?"}}'
    )
    own = {**PAIR, "principle": "honesty"}
    rendered = {"token_ids": [1, 2, 3]}
    async with serving(manifest=str(manifest)) as service:
        alone, missing = await service.scores(own, PAIR)
        assert "principle" in missing["error"]["detail"]
        same, kept, ids = await service.scores(PAIR, own, rendered, principle="honesty")
        other, _, also_kept = await service.scores(PAIR, rendered, own, principle="brevity")
        assert same == kept == also_kept == alone != other
        assert ids["tokens"] == 3
        bad = await service.score({"text": "x", "principle": "honesty"})
        assert "principle goes with prompt and response" in bad.text
        assert (await service.http.get("/manifest")).json()["prompt"]["principle"]
        bare = strict(await service.score(own))
        assert bare["reward"] == alone["reward"]
    async with serving(manifest=str(manifest), principle="honesty") as service:
        trained, chosen = await service.scores(PAIR, {**PAIR, "principle": "brevity"})
        assert (trained["reward"], chosen["reward"]) == (alone["reward"], other["reward"])


@pytest.mark.parametrize("times", [300, 60000])
async def test_a_principle_that_leaves_no_room_for_its_pair_is_too_long(
    times: int, tmp_path: Path
) -> None:
    manifest = tmp_path / "reward.json"
    manifest.write_text(
        '{"version": 2, "outputs": 5, "reward": {"output": 0}, "max_tokens": 256,'
        ' "prompt": {"principle": "Does it have {principle}?"}}'
    )
    long = {**PAIR, "prompt": "a dog " * times, "principle": "honesty"}
    crowding = {**PAIR, "principle": "a dog " * times}
    async with serving(manifest=str(manifest)) as service:
        refused, cut = await service.scores(crowding, long, truncate="prompt_start")
    assert refused["error"]["code"] == "too_long"
    assert "shorten the principle" in refused["error"]["detail"]
    assert (cut["truncated"], cut["tokens"]) == (True, 256)


async def test_a_principle_is_refused_where_the_model_is_not_asked_about_one(
    service: Service,
) -> None:
    refused = await service.score({"pairs": [PAIR], "principle": "honesty"})
    assert_problem(refused, 422, "invalid_request")
    right, wrong = await service.scores(PAIR, {**PAIR, "principle": "honesty"})
    assert "reward" in right
    assert wrong["error"]["code"] == "invalid_pair"
    async with serving(principle="honesty") as failed:
        (failure,) = failed.failures
        assert "no prompt.principle" in str(failure)
