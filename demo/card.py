"""Writes the demo checkpoint's model card, ``README.md``, with its measured numbers."""

from __future__ import annotations

import json
from pathlib import Path

from demo import check, data, texts
from demo.labels import COSTS
from demo.scores import Scorer
from fivescore.model.manifest import ATTRIBUTES

SPEED = 140
"""Pairs per second of vLLM on one CPU core (``taskset -c 0``), measured for the first card."""
CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-classification
---
# fivescore demo checkpoint

A very small reward model that measures a few simple things: how long a response is, how long its
words are, and, roughly, whether it fits the prompt, is in order and is complete.
**Do not train a policy against it**: it knows nothing about truth, safety or usefulness, and its
labels were made by rules, not by people. It exists so that the service, its tests and its
benchmarks run on a real engine without a download, and give scores that one can reason about.

| | |
|---|---|
| architecture | `LlamaForSequenceClassification`, 4 layers, hidden size 128, 5 outputs, float32 |
| outputs | {attributes} (the five attributes of HelpSteer2, in its order) |
| combined reward | Nemotron-4-340B-Reward's published weights, see `reward.json` |
| tokenizer | byte-level BPE, 6,144 entries, Llama 3's turn format |
| tokenizer's training text | prompts and responses of RM-Bench (chat, code, safety) and LLMBar |
| context | 4,096 tokens; few training rows were longer than {longest} words |
| size | {size:.1f} MB with the tokenizer |

## What it reaches

On prompts that were in none of the training rows, float32 on a CPU, by the combined reward. The
tokenizer has seen their texts; the weights have not.

{tables}

An accuracy of one half is chance; below it, style misled the model. Where LLMBar's worse response
answers another instruction (Neighbor, GPTInst), the fit to the prompt decides. Most of RM-Bench is
decided by facts, which this model does not know: there it follows length and order. RM-Bench's
accuracy is measured on held-out prompts alone, except for safety-refuse, which is not in the
training data at all; nor are RM-Bench's rejected responses.

A server on one CPU core scores about {speed} pairs per second (RM-Bench's chat pairs, 187 tokens).

## Data and labels

{train:,} training and {validation:,} validation rows in HelpSteer2's shape, made from

* the chosen responses of RM-Bench (THU-KEG/RM-Bench; chat, code and safety-response), a fifth of
  the prompts held out and an eighth for validation, by the hash of the prompt or of HumanEvalPack's
  problem, so that a problem is on one side in all its languages;
* the documentation of functions and classes in installed Python packages, with a question about
  each, and Python's own language reference (PSF licence: Python, matplotlib; BSD licence: {bsd};
  Apache 2.0: {apache});
* generated questions that name words of a response, or words that it does not have.

The texts are not part of this folder. Each response is used as it is, up to a sentence's end, or
with one kind of damage: {kinds}. The labels are from 0 to 4:

* verbosity is the length in words, on a logarithmic scale: 8 words are 0, 512 are 4. What the
  prompt asks for is not considered;
* complexity is the share of words longer than six letters: 10% are 0, 50% are 4;
* coherence, correctness and helpfulness are 4 minus the cost of the damage:

| damage | helpfulness | correctness | coherence |
|---|---|---|---|
{costs}

## Recipe

```
python -m demo.build --text FOLDER
```

makes the rows, the start and the checkpoint: `fivescore train` with {recipe}.
{minutes:.0f} minutes on one CPU core beside other work. The initial weights are random, with
hints that so short a run needs (`demo/initial.py`): embeddings made from a token's characters, a
mark on the response's tokens, and attention heads that look for a token's earlier occurrences. All
weights are trained after that. The settings were chosen on the validation prompts; the held-out
prompts were only measured, but more than once: earlier checkpoints missed a criterion, and data and
training were changed until one met them all. Complexity was a readability index at first; its rule
was simplified after it had missed its criterion.

## Limits

* English prose and common programming languages only.
* Fit to the prompt is mostly shared words: a response that repeats the prompt looks relevant.
* A fluent wrong answer scores like a right one.
* Order is recognised by openings, endings, numbers and connecting words: in a few sentences without
  them, or in a few lines of code, it is guessed.
* A single turn; short texts. Beyond the training rows' lengths the scores drift.
"""


def write(output: Path, text: Path, run: Path) -> None:
    """Measure the checkpoint in ``output`` and write its card.

    Args:
        text: the folder with RM-Bench and LLMBar.
        run: the file with the facts of the run that ``build`` wrote.
    """
    facts = json.loads(run.read_text())
    costs = (f"| {name} | {' | '.join(map(str, cost))} |" for name, cost in COSTS.items())
    weights = (output / "README.md", *output.glob("*.json"), *output.glob("*.safetensors"))
    card = CARD.format(
        attributes=", ".join(ATTRIBUTES),
        longest=data.LONGEST,
        size=sum(file.stat().st_size for file in weights if file.exists()) / 1e6,
        tables=check.tables(text, Scorer(output)),
        kinds=", ".join(kind for kind in data.KINDS if kind != "intact"),
        costs="\n".join(costs),
        speed=SPEED,
        bsd=", ".join(texts.BSD),
        apache=", ".join(texts.APACHE),
        recipe=", ".join(f"`--{name} {value}`" for name, value in facts["recipe"].items()),
        minutes=facts["minutes"],
        **facts["rows"],
    )
    (output / "README.md").write_text(card)
