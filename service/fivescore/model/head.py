"""The head of a reward model, as the manifest describes it: what is computed from hidden states.

``H`` is the body's hidden size and ``n`` the head's outputs. The tensors of each kind, beside the
body's own, are:

========== ==================================================================================
``linear`` ``score.weight`` [n, H], and ``score.bias`` [n] where there is one
``mlp``    ``score.0``, ``score.2``, ...: ``weight`` and ``bias`` of linear layers, H to n, with the
           activation between them
``token``  none: rows of the language model's head (of the embedding where the two are tied)
``gated``  ``score.weight`` [n, H], ``score.bias`` [n]; ``gate.0``, ``gate.2``, ...: ``weight`` and
           ``bias`` of linear layers, H to n, with the activation between them
========== ==================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Finite = Annotated[float, Field(allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Width = Annotated[int, Field(ge=1)]
Activation = Literal["relu", "silu", "gelu", "selu", "tanh"]
"""A function of torch.nn.functional by its name."""


class Strict(BaseModel):
    """A part of ``reward.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LinearHead(Strict):
    """One linear layer at the last token."""

    kind: Literal["linear"] = "linear"


class MlpHead(Strict):
    """Linear layers with an activation between them, at the last token."""

    kind: Literal["mlp"]
    hidden: Annotated[tuple[Width, ...], Field(min_length=1)]
    """The widths between H and n."""
    activation: Activation = "relu"


class TokenHead(Strict):
    """The language model's logit of a token at the last token, or the difference of two."""

    kind: Literal["token"]
    token: TokenId
    minus: TokenId | None = None
    """The token whose logit is subtracted."""


class Gate(Strict):
    """The weights of a gated head's outputs."""

    hidden: tuple[Width, ...] = ()
    """The widths between H and n."""
    activation: Activation = "relu"
    softmax: bool = True
    """Whether the weights are the softmax of the gate's outputs, or these outputs themselves."""
    scale: Finite = 1.0
    """A factor of the weights."""
    at: tuple[TokenId, ...] = ()
    """Token ids that stand at the prompt's end: the gate is computed at the first token of their
    last occurrence. Without any it is computed at the last token, as the outputs are."""


class GatedHead(Strict):
    """``n`` outputs at the last token, and as one output more ``sum(weight * output)``."""

    kind: Literal["gated"]
    gate: Gate = Gate()


Head = Annotated[LinearHead | MlpHead | TokenHead | GatedHead, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class OwnHead:
    """A head that the engine builds by the manifest's description.

    Args:
        head: of the manifest.
        outputs: the manifest's number of outputs.
    """

    head: MlpHead | TokenHead | GatedHead
    outputs: int

    @property
    def raw_outputs(self) -> int:
        """How many numbers the engine computes at a token: a gated head's outputs, without their
        sum, and as many of its gate."""
        return 2 * (self.outputs - 1) if isinstance(self.head, GatedHead) else self.outputs

    def tensors(self, hidden: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the head's tensors by their names; none for a token head.

        Args:
            hidden: the body's hidden size.
        """
        head, count = self.head, self.raw_outputs
        if isinstance(head, TokenHead):
            return {}
        if isinstance(head, MlpHead):
            return _chain("score", (hidden, *head.hidden, count))
        one = {"score.weight": (count // 2, hidden), "score.bias": (count // 2,)}
        return one | _chain("gate", (hidden, *head.gate.hidden, count // 2))


def _chain(name: str, widths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for place, (into, out) in enumerate(pairwise(widths)):
        shapes[f"{name}.{2 * place}.weight"] = (out, into)
        shapes[f"{name}.{2 * place}.bias"] = (out,)
    return shapes
