"""Reads the real texts: prompts with good and complete responses.

They come from RM-Bench's chat, code and safety-response prompts (the chosen responses in three
styles) and from the documentation in installed Python packages. LLMBar and RM-Bench's
safety-refuse are not used for training, so that they stay unseen.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

PYTHON = (
    *("asyncio", "concurrent", "email", "http", "json", "logging", "multiprocessing"),
    *("unittest", "urllib", "xml"),
)
PSF = (*PYTHON, "matplotlib")
BSD = ("networkx", "numpy", "pandas", "scipy", "sympy", "torch")
APACHE = ("huggingface_hub", "transformers", "vllm")
PACKAGES = (*PSF, *BSD, *APACHE)
"""Packages whose documentation is used, by their licences."""
TOPIC_WORDS = (50, 200)
"""Words in a part of the Python language reference: the least, and about the most."""
RM_BENCH = ("chat", "code", "safety-response")
HELD_OUT_PERCENT, VALIDATION_PERCENT = 20, 12
_WHOLE = re.compile(r"[.!?)}\]\"'`*|]\s*$|[^\x00-\u2fff]\s*$")
_LAST_SENTENCE = re.compile(r"(?s)^(.*[^\d\s][.!?])\s.*$")
_HEADING = re.compile(
    r"(?m)^\s*(?:[A-Z][\w ]+:?\n\s*[-=~*]{3,}|(?:Args?|Arguments|Returns?|Examples?):?$)"
)
_UNDERLINE = re.compile(r"(?m)^[-*=~^]{3,}$")
_ROLE = re.compile(r":(?:\w+:)?\w+:`~?([^`]*)`")


@dataclass(frozen=True)
class Text:
    """A prompt and a response to it.

    Prompts with the same ``group`` are one task, and all in the same split.
    """

    group: str
    domain: str
    prompt: str
    response: str
    style: int = 0

    @property
    def split(self) -> str:
        """``held_out``, ``validation`` or ``train``."""
        return split_of(self.group)


def split_of(group: str) -> str:
    """The split of a group of prompts, by its hash alone."""
    digest = hashlib.sha256(group.encode()).digest()
    place = int.from_bytes(digest[:4], "big") % 100
    if place < HELD_OUT_PERCENT:
        return "held_out"
    return "validation" if place < HELD_OUT_PERCENT + VALIDATION_PERCENT else "train"


def group_of(domain: str, row: dict[str, Any]) -> str:
    """The group of an RM-Bench row.

    HumanEvalPack has each problem in six languages: "CPP/8" and "Go/8" are one group.
    """
    if domain == "code":
        return f"code/{row['task_id'].rsplit('/', 1)[-1]}"
    return f"{domain} {row['prompt']}"


def rm_bench(folder: Path) -> list[Text]:
    """The chosen responses; ones that the data set truncates end at their last whole sentence."""
    texts = []
    for domain in RM_BENCH:
        for row in json.loads((folder / f"rmbench-{domain}_filtered.json").read_text()):
            group = group_of(domain, row)
            cut_off = not _WHOLE.search(row["chosen"][2])
            for style, response in enumerate(row["chosen"]):
                whole = _mend(response, cut_off and style == 1)
                texts.append(Text(group, domain, row["prompt"], whole, style))
    return texts


def _mend(response: str, cut_off: bool) -> str:
    # The plain style was made from the markdown one, with a full stop where that is truncated.
    response = response.rstrip()
    if _WHOLE.search(response) and not cut_off:
        return response
    whole = _LAST_SENTENCE.match(response[:-1])
    return whole.group(1) if whole else response


def documentation() -> list[Text]:
    """Questions about functions and classes of installed packages, with their docstrings."""
    seen: set[str] = set()
    texts = _topics()
    for package in PACKAGES:
        for name, docstring in _docstrings(package):
            summary, _, rest = _HEADING.split(docstring)[0].partition("\n\n")
            summary, rest = _prose(summary), _prose(rest)
            key = f"{summary} {rest}"
            if key in seen or not 20 <= len(rest.split()) <= 220 or len(summary.split()) < 3:
                continue
            seen.add(key)
            texts.append(Text(f"{package} {name}", "docs", _ask(package, name, summary), rest))
            texts.append(Text(f"{package} {name}", "docs", _ask(package, name, ""), key))
    return texts


def _topics() -> list[Text]:
    """Paragraphs of the Python language reference, which Python includes for ``help()``."""
    least, most = TOPIC_WORDS
    texts: list[Text] = []
    for name, topic in sorted(topics.items()):
        part: list[str] = []
        for paragraph in _prose(_UNDERLINE.sub("", topic)).split("\n\n"):
            part.append(paragraph)
            if sum(len(one.split()) for one in part) >= most:
                texts.append(_topic(name, part, len(texts)))
                part = []
        if sum(len(one.split()) for one in part) >= least:
            texts.append(_topic(name, part, len(texts)))
    return texts


def _topic(name: str, paragraphs: list[str], number: int) -> Text:
    prompt = f"What does the Python reference say about {name}?"
    return Text(f"topic {number}", "docs", prompt, "\n\n".join(paragraphs))


def _docstrings(package: str) -> Iterator[tuple[str, str]]:
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).rglob("*.py")):
            if "tests" in file.parts or "_vendor" in file.parts:
                continue
            for node in ast.walk(_parsed(file)):
                if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name[0] == "_":
                    continue
                if docstring := ast.get_docstring(node):
                    yield node.name, docstring


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(errors="replace"))
    except SyntaxError:  # packages include files for other versions of Python
        return ast.Module([], [])


def _prose(text: str) -> str:
    text = _ROLE.sub(r"\1", text).replace("``", "`")
    text = re.sub(r"(?m)^\s*(\.\. .*|>>> .*|:\w+.*)$", "", text)
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    return "\n\n".join(part for part in paragraphs if part)


def _ask(package: str, name: str, summary: str) -> str:
    topic = summary.rstrip(".")
    topic = topic[:1].lower() + topic[1:]
    questions = (
        (f"What does `{name}` in {package} do?", f"Explain {name} from the {package} library.")
        if not summary
        else (f"Tell me more about this: {topic}.", f"In {package}, {topic}: how does it work?")
    )
    return questions[len(name) % 2]
