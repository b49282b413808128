"""Settings: flags, then environment, then defaults; a mistake is named as it was given."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

import pytest
from pydantic import SecretStr

from fivescore.errors import ConfigurationError
from fivescore.settings import DEMO, MOST_SECONDS, Settings, load

Environment = MutableMapping[str, str]


def test_the_defaults_serve_the_demo_on_this_machine_alone() -> None:
    settings = load({})
    assert (settings.model, settings.backend, settings.api_key) == (DEMO, "vllm", ())
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)


def test_a_variable_sets_what_a_flag_sets_and_a_flag_wins(environment: Environment) -> None:
    flags = {"port": "9000", "backend": "fake", "trust_remote_code": "true", "max_tokens": "128"}
    variables = {f"FIVESCORE_{name.upper()}": value for name, value in flags.items()}
    expected = load({**flags, "trust_remote_code": True})
    environment.update(variables)
    assert load({}) == expected
    assert (expected.port, load({"port": "9001"}).port) == (9000, 9001)


def test_an_empty_variable_leaves_the_default(environment: Environment) -> None:
    # Compose files write these for a variable that is not set.
    environment.update(FIVESCORE_MODEL="", FIVESCORE_API_KEY="")
    assert (load({}).model, load({}).api_key) == (DEMO, ())


def test_every_setting_has_a_description_for_the_help() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({"port": "many"}, "--port"),
        ({"port": "70000"}, "--port"),
        ({"max_pairs": "0"}, "--max-pairs"),
        ({"backend": "tensorrt"}, "--backend"),
        ({"log_level": "loud"}, "--log-level"),
        ({"name": ""}, "--name: the name is empty: give one, or leave it out"),
        ({"name": " "}, "--name: the name is empty: give one, or leave it out"),
        ({"shutdown_grace_seconds": "-1"}, "--shutdown-grace-seconds"),
    ],
)
def test_a_faulty_flag_is_named_with_its_value(flags: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(flags)
    assert caught.value.detail.startswith(name)
    assert caught.value.detail.endswith(f", got {next(iter(flags.values()))!r}")


NUMBERS = [
    name
    for name, setting in Settings.model_fields.items()
    if re.search(r"\b(int|float)\b", str(setting.annotation)) and name != "score_range"
]


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999", "-1"])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_finite_and_not_negative(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^--{name.replace('_', '-')}: .*{value}'$"):
        load({name: value})


@pytest.mark.parametrize("name", [name for name in NUMBERS if name.endswith("_seconds")])
def test_a_time_is_one_that_timers_can_wait(name: str) -> None:
    assert getattr(load({name: str(MOST_SECONDS)}), name) == MOST_SECONDS
    with pytest.raises(ConfigurationError, match=r"less than or equal to 1000000000, got"):
        load({name: str(MOST_SECONDS + 1)})


def test_a_faulty_variable_is_named_as_a_variable(environment: Environment) -> None:
    environment["FIVESCORE_MAX_BODY_BYTES"] = "lots"
    with pytest.raises(ConfigurationError, match=r"^FIVESCORE_MAX_BODY_BYTES: .*got 'lots'$"):
        load({})


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("FIVESCORE_PRT", r": did you mean FIVESCORE_PORT\?"),
        ("FIVESCORE_MAX_PAIR", r": did you mean FIVESCORE_MAX_PAIRS\?"),
        ("FIVESCORE_LOGLEVEL", r": did you mean FIVESCORE_LOG_LEVEL\?"),
        ("FIVESCORE_XYZZY", ""),
    ],
)
def test_an_unknown_variable_is_an_error_that_suggests_a_similar_one(
    environment: Environment, name: str, rest: str
) -> None:
    environment[name] = "1"
    with pytest.raises(ConfigurationError, match=f"unknown environment variable {name}{rest}$"):
        load({})


def test_the_clients_and_other_programs_variables_are_not_refused(environment: Environment) -> None:
    environment.update(FIVESCORE_URL="http://elsewhere:8000", FIVESCOREBOARD="1", PORT="1")
    assert load({}).port == 8000


def test_engine_arguments_come_from_flags_and_variables_together(environment: Environment) -> None:
    environment["FIVESCORE_ENGINE__DTYPE"] = "float32"
    environment["FIVESCORE_ENGINE__MAX_NUM_SEQS"] = "16"
    engine = load({"engine": {"seed": "1"}}).engine
    assert engine == {"dtype": "float32", "max_num_seqs": "16", "seed": "1"}


@pytest.mark.parametrize("spelling", ["latency_seconds", "latency-seconds"])
def test_an_engine_flag_wins_over_its_variable_however_it_is_spelt(
    environment: Environment, spelling: str
) -> None:
    environment["FIVESCORE_ENGINE__LATENCY_SECONDS"] = "60"
    engine = load({"engine": {spelling: "0"}}).engine
    # Engines read the items in order, and of two spellings of one name the last counts.
    assert {name.replace("-", "_"): value for name, value in engine.items()} == {
        "latency_seconds": "0"
    }


def test_a_variable_that_should_be_json_and_is_not_is_named(environment: Environment) -> None:
    environment["FIVESCORE_ENGINE"] = "dtype=float32"
    with pytest.raises(ConfigurationError, match=r"(?i)engine"):
        load({})


def keys(settings: Settings) -> list[str]:
    return [key.get_secret_value() for key in settings.api_key]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("one", ["one"]),
        ("one,two", ["one", "two"]),
        (" one , two ", ["one", "two"]),
        ("a:b/c+d=e!~", ["a:b/c+d=e!~"]),
        ("x" * 512, ["x" * 512]),
    ],
)
def test_commas_separate_keys(environment: Environment, given: str, expected: list[str]) -> None:
    assert keys(load({"api_key": given})) == expected
    environment["FIVESCORE_API_KEY"] = given
    assert keys(load({})) == expected


def test_a_key_is_hidden_wherever_settings_are_shown() -> None:
    settings = load({"api_key": "s3cret"})
    assert all(isinstance(key, SecretStr) for key in settings.api_key)
    for shown in (repr(settings), str(settings), settings.model_dump_json(), str(settings.api_key)):
        assert "s3cret" not in shown


@pytest.mark.parametrize(
    "given",
    ["", ",", "s3cret,", "s3cret,,other", "s3cret one", "s3cret\tone", "s3cret-ü", "s3cret\x00",
     "s3cret" + "x" * 512],
)  # fmt: skip
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(
    environment: Environment, given: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"^--api-key: ") as caught:
        load({"api_key": given})
    assert "s3cret" not in caught.value.detail
    if given and "\0" not in given:
        environment["FIVESCORE_API_KEY"] = given
        with pytest.raises(ConfigurationError, match=r"^FIVESCORE_API_KEY: ") as caught:
            load({})
        assert "s3cret" not in caught.value.detail


@pytest.mark.parametrize(
    ("given", "expected"),
    [("0,4", (0, 4)), (" -1.32 , 7.88 ", (-1.32, 7.88)), ("-1e3,1e3", (-1000, 1000))],
)
def test_a_score_range_is_two_numbers(
    environment: Environment, given: str, expected: tuple[float, float]
) -> None:
    assert load({"score_range": given}).score_range == expected
    environment["FIVESCORE_SCORE_RANGE"] = given
    assert load({}).score_range == expected


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        *(
            ({"score_range": given}, "--score-range")
            for given in ("4", "4,0", "1,1", "a,b", "0,1,2", "0,nan", "0,inf", ",", "")
        ),
        *(
            ({"reward_path": given}, "--reward-path")
            for given in ("reward", "/", "", "/a b", "/a/", "//a", "/{x}", "/ü", "/a?b")
        ),
        ({"vector": "all"}, "--vector"),
        ({"trainer_truncate": "prompt_end"}, "--trainer-truncate"),
    ],
)
def test_a_faulty_setting_of_the_trainers_routes_is_named(flags: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(flags)
    assert caught.value.detail.startswith(f"{name}: ")
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("path", ["/reward", "/rm", "/a/b-c_d.e/1"])
def test_a_reward_path_is_any_path_of_plain_parts(path: str) -> None:
    assert load({"reward_path": path}).reward_path == path
