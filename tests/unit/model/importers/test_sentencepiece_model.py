"""A tokenizer.json that is made of a SentencePiece model gives SentencePiece's ids."""

from __future__ import annotations

import io
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from fivescore.model.importers import sentencepiece_model
from fivescore.model.importers.sentencepiece_model import NotRead
from tests.checkpoints import CORPUS

SYMBOLS = ["<extra_id_0>", "<extra_id_1>", "<extra_id_2>"]
IDENTITY = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
TEXTS = (
    "<extra_id_0>System\nA chat.\n<extra_id_1>User\nHi\n<extra_id_2>", " a  b ", "\n\n", "",
    "Ｆｕｌｌ ｗｉｄｔｈ ﬁ é 人工 🚀", "<s>a</s><unk>", "<0x0A>", "▁a", "a<extra_id_1>",
)  # fmt: skip


def train(**options: Any) -> bytes:
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_writer=written,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"vocab_size": 600, "model_type": "bpe", "byte_fallback": True, **options},
    )
    return written.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {},
        IDENTITY,
        {**IDENTITY, "user_defined_symbols": SYMBOLS},
        {**IDENTITY, "user_defined_symbols": SYMBOLS, "add_dummy_prefix": False},
        {"user_defined_symbols": SYMBOLS},
        {"model_type": "unigram", "user_defined_symbols": SYMBOLS, "vocab_size": 500},
        {**IDENTITY, "byte_fallback": False, "vocab_size": 300},
        {**IDENTITY, "control_symbols": ["<pad>", "<mask>"], "split_digits": True},
    ],
    ids=["default", "identity", "symbols", "no prefix", "nfkc", "unigram", "unknown", "control"],
)
def test_ids_are_sentencepiece_s(options: dict[str, Any]) -> None:
    model = train(**options)
    tokenizer = sentencepiece_model.convert(model, [])
    tokenizer.encode_special_tokens = True
    exact = SentencePieceProcessor(model_proto=model)
    unigram = options.get("model_type") == "unigram"
    texts = [text for text in TEXTS if not (unigram and text.startswith(("<s>", "<0x")))]
    for text in (*texts, *CORPUS):
        assert tokenizer.encode(text, add_special_tokens=False).ids == exact.encode(text), text


def test_added_tokens_cut_a_text_in_parts() -> None:
    model = train(**IDENTITY)
    exact = SentencePieceProcessor(model_proto=model)
    tokenizer = sentencepiece_model.convert(model, ["<s>", *SYMBOLS])
    first = exact.get_piece_size()
    ids = tokenizer.encode("a<extra_id_1> b<extra_id_2>", add_special_tokens=False).ids
    assert ids == [*exact.encode("a"), first + 1, *exact.encode(" b"), first + 2]


def test_the_model_s_own_tokens_have_their_names() -> None:
    assert sentencepiece_model.names(train()) == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }


def test_what_cannot_be_converted_is_refused() -> None:
    with pytest.raises(NotRead, match="no SentencePiece model"):
        sentencepiece_model.convert(b"not a model", [])
    with pytest.raises(NotRead, match="neither BPE nor unigram"):
        sentencepiece_model.convert(train(model_type="char", byte_fallback=False), [])
    with pytest.raises(NotRead, match="would give other ids for"):
        sentencepiece_model.convert(train(treat_whitespace_as_suffix=True), [])
