"""Makes the demo checkpoint: ``python -m demo.build --text FOLDER``.

Makes rows from texts and controlled damage, trains on them with ``fivescore train``, measures the
result on held-out prompts and writes everything into ``fivescore/demo/fivescore-demo``, or into
``--output``. The tokenizer there is kept, so that the token ids stay the same;
``--train-tokenizer FILE...`` first trains a new one (byte-level BPE) on text files.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, LlamaConfig

from demo import card, data, initial, texts
from demo.vocabulary import MAX_TOKENS, SPECIAL_TOKENS, VOCAB_SIZE, train_tokenizer
from fivescore import cli
from fivescore.settings import DEMO

CHECKPOINT = Path(DEMO)
SEED = 20240612  # the date of arXiv 2406.08673
VALIDATION_ROWS = 400
"""The most rows of the validation file."""
RECIPE = {
    "epochs": "2",
    "batch-size": "16",
    "micro-batch-size": "4",
    "learning-rate": "1e-3",
    "schedule": "cosine",
    "warmup-steps": "100",
    "weight-decay": "0.1",
    "max-tokens": str(MAX_TOKENS),
    "log-every": "50",
    "seed": "1",
}
"""Flags of ``fivescore train`` that are not its defaults."""
RUN_FILE = "run.json"
"""Name of the file with the facts of a run that the card needs."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
TEMPLATE = "chat_template.jinja"
TRAINED = ("config.json", "model.safetensors", "reward.json")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def write_rows(text: Path, folder: Path) -> dict[str, int]:
    """Write ``train.jsonl`` and ``validation.jsonl``; returns the number of rows of each."""
    bench = texts.rm_bench(text)
    splits = {
        "train": [one for one in bench if one.split == "train"] + texts.documentation(),
        "validation": [one for one in bench if one.split == "validation"],
    }
    counts = {}
    for name, some in splits.items():
        rows = data.rows(some, SEED)
        rows = rows[:VALIDATION_ROWS] if name == "validation" else rows
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
        counts[name] = len(rows)
    return counts


def write_start(tokenizer: Path, folder: Path) -> None:
    """Write the backbone with its initial weights, and the tokenizer."""
    special = SPECIAL_TOKENS.index
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=MAX_TOKENS,
        rope_parameters={"rope_type": "default", "rope_theta": 1e7},
        bos_token_id=special("<|begin_of_text|>"),
        eos_token_id=special("<|eot_id|>"),
        pad_token_id=special("<|pad|>"),
    )
    for name in (*TOKENIZER, TEMPLATE):
        shutil.copyfile(tokenizer / name, folder / name)
    initial.write(folder, config, AutoTokenizer.from_pretrained(tokenizer), SEED)


def train(rows: Path, start: Path, output: Path) -> None:
    """Run ``fivescore train``.

    Raises:
        SystemExit: training failed, after it printed the reason.
    """
    flags = [part for name, value in RECIPE.items() for part in (f"--{name}", value)]
    places = ["--data", str(rows / "train.jsonl"), "--validation", str(rows / "validation.jsonl")]
    if cli.main(["train", *places, "--model", str(start), "--output", str(output), *flags]):
        raise SystemExit(1)


def build(text: Path, output: Path, work: Path) -> None:
    """Run all steps, with intermediate files in ``work``."""
    counts = write_rows(text, work)
    start = work / "start"
    start.mkdir(exist_ok=True)
    write_start(output, start)
    began = time.monotonic()
    train(work, start, work / "trained")
    minutes = (time.monotonic() - began) / 60
    for name in TRAINED:
        shutil.copyfile(work / "trained" / name, output / name)
    facts = {"rows": counts, "minutes": minutes, "recipe": RECIPE}
    (work / RUN_FILE).write_text(json.dumps(facts) + "\n")
    card.write(output, text, work / RUN_FILE)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="folder with RM-Bench and LLMBar")
    parser.add_argument("--output", type=Path, default=CHECKPOINT, help="folder to write")
    parser.add_argument("--work", type=Path, help="folder for rows and training [a temporary one]")
    parser.add_argument("--train-tokenizer", nargs="+", metavar="FILE", help="plain text files")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    if args.train_tokenizer:
        train_tokenizer(args.train_tokenizer, args.output)
    elif args.output.resolve() != CHECKPOINT:
        for name in TOKENIZER:
            shutil.copyfile(CHECKPOINT / name, args.output / name)
    (args.output / TEMPLATE).write_text(CHAT_TEMPLATE)
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        build(args.text, args.output, work)
    for file in args.output.iterdir():
        file.chmod(0o644)  # safetensors makes files that only their owner can read
    size = sum(file.stat().st_size for file in args.output.iterdir())
    print(f"{args.output}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
