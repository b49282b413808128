"""``SECURITY.md`` points to tests that exist, and lists every limit with its default."""

from __future__ import annotations

import re
from pathlib import Path

from fivescore.http.auth import OPEN
from fivescore.http.keyring import MOST_BYTES, MOST_KEYS
from fivescore.http.ratelimit import BURST_SECONDS
from fivescore.model.checkpoint import CHARACTERS_PER_TOKEN, LEAST_MAX_CHARACTERS
from fivescore.scoring.admission import STEPS_OF_SEQUENCES, STEPS_OF_TOKENS
from fivescore.settings import Settings

ROOT = Path(__file__).parents[2]
SECURITY = (ROOT / "SECURITY.md").read_text()
KEYS = (
    (ROOT / "docs" / "reference.md").read_text().partition("\n## Keys\n")[2].partition("\n## ")[0]
)
LIMITS = re.compile(r"max_|.*_(timeout_seconds|per_second|alive_seconds)$")


def test_every_test_it_points_to_exists() -> None:
    named = re.findall(r"`(tests/\S+?)::(\w+)`", SECURITY)
    assert len(named) > 30
    assert SECURITY.count("`tests/") == len(named)
    for file, test in named:
        source = (ROOT / file).read_text()
        assert re.search(rf"^(async )?def {test}\(", source, re.MULTILINE), (file, test)


DERIVED = {
    "max_tokens": "the model's",
    "max_inflight_pairs": f"{STEPS_OF_SEQUENCES} engine steps",
    "max_inflight_tokens": f"{STEPS_OF_TOKENS} engine steps",
}


def test_every_limit_is_listed_with_its_default_and_no_other() -> None:
    rows = re.findall(r"^\| `--([a-z-]+)` \| (.*?) \|", SECURITY, re.MULTILINE)
    listed = {name.replace("-", "_"): default for name, default in rows}
    limits = {name: field for name, field in Settings.model_fields.items() if LIMITS.match(name)}
    assert listed.keys() == limits.keys()
    for name, field in limits.items():
        default = DERIVED.get(name, "none")
        assert listed[name] == (default if field.default is None else str(field.default)), name


def test_the_settings_it_names_exist() -> None:
    named = set(re.findall(r"`--([a-z-]+)[` ]", SECURITY)) - {"revision"}
    assert {name.replace("-", "_") for name in named} <= set(Settings.model_fields)


def test_its_numbers_are_the_codes() -> None:
    assert f"{CHARACTERS_PER_TOKEN} characters a token (at least 2^20)" in SECURITY
    assert LEAST_MAX_CHARACTERS == 2**20
    assert f"up to {MOST_KEYS:,}, in up to {MOST_BYTES // 2**20} MiB" in KEYS
    assert f"up to {BURST_SECONDS:.0f} seconds of its rate" in KEYS


def test_what_is_open_is_what_it_says() -> None:
    """One more would need another sentence here and in the reference."""
    assert sorted(OPEN) == ["/", "/health", "/health/live", "/health/ready"]
