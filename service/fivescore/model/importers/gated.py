"""Heads with a gate: ArmoRM, QRM and URM.

ArmoRM (``modeling_custom.py`` of RLHFlow/ArmoRM-Llama3-8B-v0.1) and QRM
(``rewardbench/models/qrm.py``): ``r = W h`` at the last token, QRM's averaged over the quantiles;
``T`` is the ``reward_transform_matrix``; ``g = softmax(gating(h_j) / temperature) * logit_scale``,
where ``j`` is the first token of the last occurrence of the prompt's end; the reward is
``sum(g * (r T))``. ArmoRM's code returns ``r`` as its rewards, QRM's returns ``r T``.

URM (LxzGordon/URM-LLaMa-3.1-8B): ``score`` gives a mean and a log-variance per attribute in
turn, and ``weights.fc``, with SELU between its layers, the weights of the means, at the last token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from fivescore.errors import ConfigurationError
from fivescore.model.head import Gate, GatedHead
from fivescore.model.importers import body, meaning
from fivescore.model.importers.linear import Layer, is_finite, planned_chain, with_bias
from fivescore.model.importers.options import Options
from fivescore.model.importers.plan import Plan, PlannedTensor
from fivescore.model.importers.sources import NotFetched, Source, Tensor, computed
from fivescore.model.manifest import ATTRIBUTES, Affine, Manifest, PromptFormat

if TYPE_CHECKING:
    import torch

REGRESSION, TRANSFORM, SCALE = (
    "regression_layer.weight", "reward_transform_matrix", "gating.logit_scale",
)  # fmt: skip
GATING = re.compile(r"gating\.layers\.(\d+)\.(\w+)")
TEMPERATURE = {"llama": 10.0, "gemma2": 1.0}
"""The default of ``gating_temperature`` in the models' code, by the body."""
FC = re.compile(r"(weights\.fc)\.(\d+)\.(weight|bias)")
EPSILON = 1e-5
"""The default of ``torch.nn.BatchNorm1d``."""
NEVER = -1e4
"""A gate's output whose softmax is 0 in float32: its output has no share in the reward."""
ENDS = (
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "<end_of_turn>\n<start_of_turn>model\n",
)
"""What stands between a prompt and its response, for Llama 3 and for Gemma 2."""
LLAMA_3_END = (128009, 128006, 78191, 128007, 271)
"""The ids of the first one, as ArmoRM's and QRM's code has them (``token_pattern``)."""
OBJECTIVES = (
    *ATTRIBUTES, "ultrafeedback_overall_score", "ultrafeedback_instruction_following",
    "ultrafeedback_truthfulness", "ultrafeedback_honesty", "ultrafeedback_helpfulness",
    "beavertails_is_safe", "prometheus_score", "argilla_overall_quality", "argilla_judge_lm",
    "code_complexity", "code_style", "code_explanation", "code_instruction_following",
    "code_readability",
)  # fmt: skip
"""ArmoRM's 19 objectives in their order on its card; the first five are HelpSteer's."""
HELPSTEER_SCALE, HELPSTEER_OFFSET = 5.0, -0.5
"""ArmoRM's card: the first five rewards times 5 less 0.5 are on HelpSteer's scale."""


class Step(NamedTuple):
    """A linear layer of a gate, and the batch norm that stands after its ReLU."""

    layer: Layer
    norm: Mapping[str, Tensor] | None


def plan(source: Source, options: Options) -> Plan | None:
    """The plan of ArmoRM's or QRM's head; None where the tensors are not those of one."""
    inner, _, others = body.parts(source)
    steps = _steps(others)
    if REGRESSION not in others or not steps:
        return None
    if unknown := [name for name in others if not _is_known(name)]:
        raise source.refuse(f"a gated head with {unknown[0]}, which ArmoRM and QRM do not have")
    head = _Head(source, others, steps)
    head.check()
    gate = Gate(
        hidden=tuple(step.layer.weight.shape[0] for step in steps[:-1]),
        scale=head.scale,
        at=_prompt_end(source),
    )
    objectives = head.objectives
    return Plan(
        kind=head.kind,
        sentence=f"a {source.config.get('model_type')} reward model with {objectives} gated"
        f" objectives ({'ArmoRM' if head.kind == 'armorm' else 'QRM'})",
        config=body.config(source, head.rows),
        manifest=meaning.with_head(
            _manifest(objectives, head.rows, head.kind == "armorm"),
            GatedHead(kind="gated", gate=gate),
        ),
        tensors=(*body.planned(inner), *head.planned()),
        files=source.files,
        head=lambda states, ids: head.reference(states, ids, gate.at),
    )


def _manifest(objectives: int, rows: int, scaled: bool) -> Manifest:
    """The first ``objectives`` outputs by their names, and the gated sum as the reward."""
    known: dict[int, tuple[str, ...]] = {len(names): names for names in (ATTRIBUTES, OBJECTIVES)}
    names = known.get(objectives, tuple(f"output_{output}" for output in range(objectives)))
    attributes = {}
    for output, name in enumerate(names):
        is_helpsteer = scaled and name in ATTRIBUTES
        attributes[name] = (
            Affine(output=output, scale=HELPSTEER_SCALE, offset=HELPSTEER_OFFSET)
            if is_helpsteer
            else Affine(output=output)
        )
    return Manifest(
        outputs=rows + 1,
        attributes=attributes,
        reward=Affine(output=rows),
        prompt=PromptFormat(),
    )


def _is_known(name: str) -> bool:
    return name in (REGRESSION, TRANSFORM, SCALE) or GATING.fullmatch(name) is not None


def _steps(others: Mapping[str, Tensor]) -> list[Step]:
    """The gate's linear layers in order, each with the batch norm after it."""
    modules: dict[int, dict[str, Tensor]] = {}
    for name, tensor in others.items():
        if match := GATING.fullmatch(name):
            modules.setdefault(int(match[1]), {})[match[2]] = tensor
    steps: list[Step] = []
    for _, tensors in sorted(modules.items()):
        weight = tensors.get("weight")
        if weight is not None and len(weight.shape) == 2:
            steps.append(Step(Layer(weight, tensors.get("bias")), None))
        elif {"running_mean", "running_var", "weight", "bias"} <= tensors.keys() and steps:
            steps[-1] = Step(steps[-1].layer, tensors)
        else:
            return []
    return steps


def _prompt_end(source: Source) -> tuple[int, ...]:
    """The ids between a prompt and its response, by the source's tokenizer.

    Raises:
        ConfigurationError: its tokenizer has neither Llama 3's nor Gemma 2's markers.
    """
    tokenizer = source.tokenizer()
    if tokenizer is None:
        return LLAMA_3_END
    for text in ENDS:
        first = text.partition(">")[0] + ">"
        if tokenizer.token_to_id(first) is not None:
            return tuple(tokenizer.encode(text, add_special_tokens=False).ids)
    raise source.refuse(
        "a gated head, and a tokenizer without <|eot_id|> or <end_of_turn>: where its gate is read"
        " is unknown"
    )


@dataclass(frozen=True, slots=True)
class _Head:
    """ArmoRM's or QRM's head over a source's tensors."""

    source: Source
    tensors: Mapping[str, Tensor]
    steps: Sequence[Step]

    def check(self) -> None:
        """Check the head's parts that its outputs do not show.

        Raises:
            ConfigurationError: one of them misfits the others.
        """
        count, rows = self.objectives, self.tensors[REGRESSION].shape[0]
        if rows % count:
            raise self.source.refuse(f"{REGRESSION} has {rows} rows, and the gate {count} outputs")
        fits: dict[str, set[tuple[int, ...]]] = {TRANSFORM: {(count, count)}, SCALE: {(), (1,)}}
        for name, shapes in fits.items():
            if name in self.tensors and self.tensors[name].shape not in shapes:
                found = list(self.tensors[name].shape)
                raise self.source.refuse(f"{name} is {found}, and the gate has {count} outputs")
        value = self.source.config.get("gating_temperature", 1.0)
        if not (is_finite(value) and value > 0):
            raise self.source.refuse(f"config.json has gating_temperature {value}: it is above 0")

    @property
    def objectives(self) -> int:
        return self.steps[-1].layer.weight.shape[0]

    @property
    def quantiles(self) -> int:
        return self.tensors[REGRESSION].shape[0] // self.objectives

    @property
    def kind(self) -> str:
        has_norms = any(step.norm for step in self.steps)
        return "qrm" if has_norms or self.quantiles > 1 else "armorm"

    @property
    def rows(self) -> int:
        """Outputs before the gated sum: ArmoRM names ``r``, and weighs ``r T`` beside it."""
        return self.objectives * (2 if self.kind == "armorm" else 1)

    @property
    def temperature(self) -> float:
        default = TEMPERATURE.get(str(self.source.config.get("model_type")), TEMPERATURE["llama"])
        return float(self.source.config.get("gating_temperature", default))

    @property
    def scale(self) -> float:
        try:
            return float(self.tensors[SCALE].float()) if SCALE in self.tensors else 1.0
        except NotFetched:  # only what it is was asked for
            return 1.0

    def planned(self) -> list[PlannedTensor]:
        """The head's tensors in the layout of ``gated``, in float32."""
        rows, width = self.rows, self.tensors[REGRESSION].shape[1]
        found = [
            computed((rows, width), self._score).planned("score.weight"),
            computed((rows,), lambda: _zeros(rows)).planned("score.bias"),
        ]
        for place, step in enumerate(self.steps):
            is_last = place == len(self.steps) - 1
            outputs, inputs = step.layer.weight.shape
            outputs = rows if is_last else outputs
            for part, shape in (("weight", (outputs, inputs)), ("bias", (outputs,))):
                tensor = computed(shape, _Folded(self, place, part).read)
                found.append(tensor.planned(f"gate.{2 * place}.{part}"))
        return found

    def _regression(self) -> torch.Tensor:
        """The rows of ``r``, ``[objectives, H]``; an objective's quantiles are adjacent rows."""
        weight = self.tensors[REGRESSION].read().double()
        return weight.reshape(self.objectives, self.quantiles, -1).mean(dim=1)

    def _transform(self) -> torch.Tensor:
        import torch

        if TRANSFORM not in self.tensors:
            return torch.eye(self.objectives, dtype=torch.float64)
        return self.tensors[TRANSFORM].read().double()

    def _score(self) -> torch.Tensor:
        import torch

        rows = self._regression()
        weighed = self._transform().T @ rows
        found = torch.cat([rows, weighed]) if self.kind == "armorm" else weighed
        return found.float()

    def folded(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A gate layer's weight and bias, with the norm before it and the temperature in them.

        Folded in float64, as each rounding would be in every reward.
        """
        import torch

        layer = self.steps[place].layer
        weight = layer.weight.read().double()
        bias = weight.new_zeros(weight.shape[0])
        bias = bias if layer.bias is None else layer.bias.read().double()
        norm = self.steps[place - 1].norm if place else None
        if norm is not None:
            mean, variance, scale, shift = (
                norm[name].read().double()
                for name in ("running_mean", "running_var", "weight", "bias")
            )
            factor = scale / (variance + EPSILON).sqrt()
            bias = bias + weight @ (shift - mean * factor)
            weight = weight * factor
        if place < len(self.steps) - 1:
            return weight.float(), bias.float()
        more = self.rows - self.objectives
        never = torch.full((more,), NEVER, dtype=bias.dtype)
        weight = torch.cat([weight.new_zeros(more, weight.shape[1]), weight / self.temperature])
        return weight.float(), torch.cat([never, bias / self.temperature]).float()

    def reference(
        self, states: torch.Tensor, ids: Sequence[int], end: Sequence[int]
    ) -> list[float]:
        """The outputs by the published formula; see the module."""
        import torch

        rewards = torch.nn.functional.linear(states[-1], self.tensors[REGRESSION].float())
        rewards = rewards.reshape(self.objectives, self.quantiles).mean(dim=1)
        gate = states[_last(ids, end)]
        for place, (layer, norm) in enumerate(self.steps):
            gate = layer.apply(gate)
            gate = gate.relu() if place < len(self.steps) - 1 else gate
            if norm is not None:
                mean, variance = norm["running_mean"].float(), norm["running_var"].float()
                gate = (gate - mean) / (variance + EPSILON).sqrt()
                gate = gate * norm["weight"].float() + norm["bias"].float()
        weights = torch.softmax(gate / self.temperature, dim=0) * self.scale
        adjusted = rewards @ self._transform().float()
        shown = [rewards, adjusted] if self.kind == "armorm" else [adjusted]
        return [*torch.cat(shown).tolist(), float((weights * adjusted).sum())]


@dataclass(frozen=True, slots=True)
class _Folded:
    """One tensor of a folded gate layer."""

    head: _Head
    place: int
    part: str

    def read(self) -> torch.Tensor:
        return self.head.folded(self.place)[self.part == "bias"].contiguous()


def _last(ids: Sequence[int], end: Sequence[int]) -> int:
    """The first place of the last occurrence of ``end``.

    Raises:
        ConfigurationError: there is none.
    """
    wanted = list(end)
    for place in range(len(ids) - len(wanted), -1, -1):
        if list(ids[place : place + len(wanted)]) == wanted:
            return place
    raise ConfigurationError(
        f"a rendered pair does not have the ids {wanted}, at which the gate is read: the chat"
        " template is another model's"
    )


def _zeros(size: int) -> torch.Tensor:
    import torch

    return torch.zeros(size)


def plan_urm(source: Source, options: Options) -> Plan | None:
    """The plan of URM's head; None where the tensors are not those of one."""
    inner, _, others = body.parts(source)
    numbers = sorted({int(match[2]) for match in map(FC.fullmatch, others) if match})
    rest = [name for name in others if not FC.fullmatch(name)]
    if not all(f"weights.fc.{n}.weight" in others for n in numbers):
        return None
    if not numbers or not {"score.weight"} <= set(rest) <= {"score.weight", "score.bias"}:
        return None
    chain = [
        Layer(others[f"weights.fc.{n}.weight"], others.get(f"weights.fc.{n}.bias")) for n in numbers
    ]
    attributes = chain[-1].weight.shape[0]
    score = Layer(others["score.weight"], others.get("score.bias"))
    if score.weight.shape[0] != 2 * attributes:
        raise source.refuse(
            f"URM's score has two rows per weight, and this one {score.weight.shape[0]} for"
            f" {attributes}"
        )
    hidden = tuple(layer.weight.shape[0] for layer in chain[:-1])
    gate = Gate(hidden=hidden, activation="selu", softmax=False)
    return Plan(
        kind="urm",
        sentence=f"a {source.config.get('model_type')} reward model with {attributes} weighted"
        " attributes (URM)",
        config=body.config(source, attributes),
        manifest=meaning.with_head(
            _manifest(attributes, attributes, scaled=False), GatedHead(kind="gated", gate=gate)
        ),
        tensors=(*body.planned(inner), *_urm_tensors(score, chain)),
        files=source.files,
        head=lambda states, ids: _urm(score, chain, states[-1]),
    )


def _urm_tensors(score: Layer, chain: Sequence[Layer]) -> list[PlannedTensor]:
    """The rows of the means, without those of the log-variances, and the network."""
    rows, width = score.weight.shape
    whole = with_bias(score)
    assert whole.bias is not None
    means = [
        computed((rows // 2, *shape), partial(_even, tensor))
        for tensor, shape in ((whole.weight, (width,)), (whole.bias, ()))
    ]
    names = ("score.weight", "score.bias")
    found = [tensor.planned(name) for name, tensor in zip(names, means, strict=True)]
    return [*found, *planned_chain("gate", chain)]


def _even(tensor: Tensor) -> torch.Tensor:
    return tensor.float()[::2].contiguous()


def _urm(score: Layer, chain: Sequence[Layer], state: torch.Tensor) -> list[float]:
    import torch

    means = score.apply(state)[::2]
    weights = state
    for layer in chain[:-1]:
        weights = torch.nn.functional.selu(layer.apply(weights))
    weights = chain[-1].apply(weights)
    return [*means.tolist(), float((means * weights).sum())]
