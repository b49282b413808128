"""Settings: flags, then environment, then defaults; a mistake is named as it was given."""

from __future__ import annotations

from collections.abc import MutableMapping

import pytest

from fivescore.errors import ConfigurationError
from fivescore.settings import DEMO, Settings, load

Environment = MutableMapping[str, str]


def test_the_defaults_serve_the_demo_on_this_machine_alone(environment: Environment) -> None:
    settings = load({})
    assert (settings.model, settings.backend) == (DEMO, "vllm")
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)


def test_a_variable_sets_what_a_flag_sets(environment: Environment) -> None:
    environment.update(
        FIVESCORE_PORT="9000",
        FIVESCORE_BACKEND="fake",
        FIVESCORE_TRUST_REMOTE_CODE="true",
        FIVESCORE_MAX_TOKENS="128",
    )
    from_environment = load({})
    flags = {"port": "9000", "backend": "fake", "trust_remote_code": True, "max_tokens": "128"}
    for name in list(environment):
        if name.startswith("FIVESCORE_"):
            del environment[name]
    assert from_environment == load(flags)
    assert from_environment.port == 9000


def test_an_empty_variable_leaves_the_default(environment: Environment) -> None:
    environment["FIVESCORE_MODEL"] = ""  # compose files write this for a variable that is not set
    assert load({}).model == DEMO


def test_a_flag_wins_over_its_variable(environment: Environment) -> None:
    environment["FIVESCORE_PORT"] = "9000"
    assert load({"port": "9001"}).port == 9001


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
        ({"shutdown_grace_seconds": "-1"}, "--shutdown-grace-seconds"),
    ],
)
def test_a_faulty_flag_is_named_with_its_value(
    environment: Environment, flags: dict[str, str], name: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(flags)
    assert caught.value.detail.startswith(f"{name}: ")
    assert caught.value.detail.endswith(f"got {next(iter(flags.values()))!r}")


def test_a_faulty_variable_is_named_as_a_variable(environment: Environment) -> None:
    environment["FIVESCORE_MAX_BODY_BYTES"] = "lots"
    with pytest.raises(ConfigurationError, match=r"^FIVESCORE_MAX_BODY_BYTES: .*got 'lots'$"):
        load({})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FIVESCORE_PRT", "FIVESCORE_PORT"),
        ("FIVESCORE_MAX_PAIR", "FIVESCORE_MAX_PAIRS"),
        ("FIVESCORE_LOGLEVEL", "FIVESCORE_LOG_LEVEL"),
    ],
)
def test_an_unknown_variable_is_an_error_that_suggests_the_one_meant(
    environment: Environment, name: str, meant: str
) -> None:
    environment[name] = "1"
    with pytest.raises(ConfigurationError, match=f"{name}: did you mean {meant}\\?"):
        load({})


def test_an_unknown_variable_without_a_likeness_is_an_error_too(environment: Environment) -> None:
    environment["FIVESCORE_XYZZY"] = "1"
    with pytest.raises(ConfigurationError, match=r"unknown environment variable FIVESCORE_XYZZY$"):
        load({})


def test_the_clients_variable_and_other_programs_are_not_ours_to_refuse(
    environment: Environment,
) -> None:
    environment.update(FIVESCORE_URL="http://elsewhere:8000", FIVESCOREBOARD="1", PORT="1")
    assert load({}).port == 8000


def test_engine_arguments_come_from_variables(environment: Environment) -> None:
    environment["FIVESCORE_ENGINE__DTYPE"] = "float32"
    environment["FIVESCORE_ENGINE__MAX_NUM_SEQS"] = "16"
    assert load({}).engine == {"dtype": "float32", "max_num_seqs": "16"}


def test_engine_arguments_come_from_flags_and_variables_together(
    environment: Environment,
) -> None:
    environment["FIVESCORE_ENGINE__DTYPE"] = "float32"
    engine = load({"engine": {"seed": "1"}}).engine
    assert engine == {"dtype": "float32", "seed": "1"}


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
