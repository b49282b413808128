"""Training and validation rows of a data set with the layout of HelpSteer2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fivescore.data import hub
from fivescore.data.reader import files_of_split, is_hub_id, no_files, read_files
from fivescore.data.rows import Row
from fivescore.errors import ConfigurationError

VALIDATION_NAMES = ("validation", "val")
"""HelpSteer2 calls the split ``validation``; its preference part calls it ``val``."""
PREFERENCE = "preference"
"""Name of the folder of HelpSteer2 with the preferences, and of the file in it."""


@dataclass(frozen=True, slots=True)
class Splits:
    """All rows of a data set, bad ones included."""

    train: list[Row]
    validation: list[Row]


def read_splits(source: str, validation: Path | None, stage: str) -> Splits:
    """The rows of a file, a folder or a hub id.

    Args:
        validation: a file that holds the validation rows instead of ``source``.
        stage: ``preference`` reads the preference part of HelpSteer2.

    Raises:
        ConfigurationError: a split is missing or cannot be read; says what to give instead.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        splits = _read_folder(path, stage, train_only=validation is not None)
    elif path.is_file():
        splits = _by_column({"train": _read([path])})
    elif is_hub_id(source):
        splits = _by_column(_read_hub(source, stage))
    else:
        raise ConfigurationError(f"--data {source}: there is no such file or folder")
    if validation is not None:
        splits["validation"] = _read([validation])
    for name in ("train", "validation"):
        if not splits.get(name):
            raise ConfigurationError(
                f"--data {source}: there are no {name} rows"
                + ("" if name == "train" else ": give a file with --validation")
            )
    return Splits(splits["train"], splits["validation"])


def _read(files: list[Path]) -> list[Row]:
    """All rows, with places that hold the file's name without its path, for model cards."""
    return [row._replace(origin=Path(row.origin).name) for row in read_files(files)]


def _read_folder(folder: Path, stage: str, train_only: bool) -> dict[str, list[Row]]:
    places = [folder, folder / "data"]
    if stage == PREFERENCE:
        places = [folder / PREFERENCE, *places]
    for place in filter(Path.is_dir, places):
        if files := _files(place, "train"):
            names = () if train_only else VALIDATION_NAMES
            held_out = [file for name in names for file in _files(place, name)]
            splits = {"train": _read(files), "validation": _read(held_out)}
            return splits if splits["validation"] else _by_column({"train": splits["train"]})
        if stage == PREFERENCE and (files := _files(place, PREFERENCE)):
            return _by_column({"train": _read(files)})
    raise ConfigurationError(f"--data {no_files(folder, 'train')}")


def _files(folder: Path, split: str) -> list[Path]:
    return files_of_split(folder, split, loosely=False)


def _read_hub(name: str, stage: str) -> dict[str, list[Row]]:
    loaded = hub.load(name, folder=PREFERENCE if stage == PREFERENCE else None)
    splits: dict[str, list[Row]] = {"train": [], "validation": []}
    for split, rows in loaded.items():
        key = "validation" if split in VALIDATION_NAMES else split
        if key in splits:
            splits[key] = list(hub.rows(split, rows))
    return splits


def _by_column(splits: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Split the training rows by their column ``split``, if they are the only split.

    HelpSteer2-Preference has this column.
    """
    if splits.get("validation"):
        return splits

    def held_out(row: Row) -> bool:
        return row.value is not None and row.value.get("split") in VALIDATION_NAMES

    rows = splits["train"]
    return {
        "train": [row for row in rows if not held_out(row)],
        "validation": [row for row in rows if held_out(row)],
    }
