"""A SentencePiece model as a tokenizer.json that gives the same ids.

``sentencepiece`` itself encodes awkward texts beside it, and a difference is an error. Three things
are other than in transformers' converters: symbols in the vocabulary, such as ``<extra_id_1>``, are
found in the normalised text, as SentencePiece finds them, so the space that it puts before a text
stands before a symbol too; control tokens are never read from text; and NeMo's added tokens cut a
text in parts that are encoded one by one (NeMo, ``sentencepiece_tokenizer.py``, ``legacy``).
A text that is one symbol and nothing else gets no space before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers
from tokenizers import Tokenizer as RustTokenizer

from fivescore.model.tokenizer import panics_are_errors, probes

UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, SYMBOL = 1, 2, 3, 4
"""Types of models and of pieces (sentencepiece_model.proto)."""
SPACE = "▁"


class NotRead(Exception):
    """A model cannot be converted; the message says why."""


def convert(model: bytes, added: Sequence[str]) -> RustTokenizer:
    """The tokenizer of a ``.model`` file and of the tokens that NeMo adds to it.

    Args:
        added: they get the ids behind the model's pieces, in this order, without those that it has.

    Raises:
        NotRead: it is no such model, or one that cannot be encoded as SentencePiece does.
    """
    try:
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
    except ImportError as error:
        raise NotRead("it needs sentencepiece: pip install 'fivescore[import]'") from error
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(model)
        exact = SentencePieceProcessor(model_proto=model)
    except Exception as error:  # the libraries raise several types for a damaged file
        raise NotRead("no SentencePiece model, or a damaged one") from error
    tokenizer = RustTokenizer(_model(proto))
    symbols = [piece.piece for piece in proto.pieces if piece.type == SYMBOL]
    tokenizer.normalizer = _normalizer(proto.normalizer_spec, symbols)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_tokens(
        [
            AddedToken(piece.piece, normalized=piece.type == SYMBOL, special=piece.type != SYMBOL)
            for piece in proto.pieces
            if piece.type in (UNKNOWN, CONTROL, SYMBOL)
        ]
    )
    new = [token for token in dict.fromkeys(added) if tokenizer.token_to_id(token) is None]
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in new])
    _check(tokenizer, exact, [*symbols[:4], *_never_read(proto)[:6]], new)
    return tokenizer


def _never_read(proto: Any) -> list[str]:
    """Pieces that must stand in no text's ids.

    tokenizers' unigram finds them in texts all the same; ``model/tokenizer.py`` spells special ones
    out, and bytes' names, such as ``<0x0A>``, stay.
    """
    if proto.trainer_spec.model_type == UNIGRAM:
        return []
    return [piece.piece for piece in proto.pieces if piece.type not in (NORMAL, SYMBOL)]


def names(model: bytes) -> dict[str, str]:
    """The model's own tokens by transformers' names, such as ``bos_token``."""
    from sentencepiece import SentencePieceProcessor

    exact = SentencePieceProcessor(model_proto=model)
    ids = {
        "bos": exact.bos_id(),
        "eos": exact.eos_id(),
        "unk": exact.unk_id(),
        "pad": exact.pad_id(),
    }
    return {f"{name}_token": exact.id_to_piece(id_) for name, id_ in ids.items() if id_ >= 0}


def _model(proto: Any) -> Any:
    from transformers.convert_slow_tokenizer import generate_merges

    trainer, pieces = proto.trainer_spec, proto.pieces
    if trainer.model_type == UNIGRAM:
        scored = [(piece.piece, piece.score) for piece in pieces]
        return models.Unigram(scored, trainer.unk_id, byte_fallback=trainer.byte_fallback)
    if trainer.model_type != BPE:
        raise NotRead("a SentencePiece model that is neither BPE nor unigram")
    vocabulary = {piece.piece: id_ for id_, piece in enumerate(pieces)}
    skipped = {piece.piece for piece in pieces if piece.type != NORMAL}
    scores = [(piece.piece, piece.score) for piece in pieces]
    return models.BPE(
        vocabulary,
        generate_merges(vocabulary, scores, skipped),
        unk_token=trainer.unk_piece,
        fuse_unk=True,
        byte_fallback=trainer.byte_fallback,
    )


def _normalizer(spec: Any, symbols: Sequence[str]) -> Any:
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex("^ +| +$"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    steps.append(normalizers.Replace(" ", SPACE))
    if spec.add_dummy_prefix:
        # The symbols' own strings are normalised too, and must stay what they are.
        alone = "|".join(map(re.escape, symbols))
        other = rf"(?!(?:{alone})\z)" if symbols else ""
        steps.append(normalizers.Replace(Regex(rf"\A{other}(?=[\s\S])"), SPACE))
    return normalizers.Sequence(steps)


def _check(
    tokenizer: RustTokenizer, exact: Any, pieces: Sequence[str], added: Sequence[str]
) -> None:
    copy = RustTokenizer.from_str(tokenizer.to_str())
    copy.encode_special_tokens = True  # SentencePiece reads no control token from text
    for text in _texts(copy, pieces):
        if any(token in text for token in added):
            continue
        try:
            with panics_are_errors():
                found = copy.encode(text, add_special_tokens=False).ids
        except Exception:  # the library raises Exception itself
            found = None
        if found != exact.encode(text):
            raise NotRead(f"tokenizer.json would give other ids for {text!r:.40}")


def _texts(tokenizer: RustTokenizer, pieces: Sequence[str]) -> Iterator[str]:
    yield "<extra_id_0>System\nA chat.\n<extra_id_1>User\n Hi  there\n<extra_id_2>"
    for text in probes(tokenizer, pieces):
        # SentencePiece ends a text at its first NUL.
        yield text.replace("\x00", "")
