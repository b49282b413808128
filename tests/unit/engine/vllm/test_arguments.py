"""Engine options in every spelling reach vLLM as what they mean."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from fivescore.engine.vllm.zeroing import GpuZeroing
from fivescore.errors import ConfigurationError
from fivescore.settings import DEMO

arguments = pytest.importorskip("fivescore.engine.vllm.arguments")


def made(**options: Any) -> Any:
    return arguments.engine_arguments(DEMO, options, {})


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        ({"hf-overrides.num_labels": "1"}, "hf_overrides.num_labels", 1),
        ({"hf_overrides": {"num_labels": 1}}, "hf_overrides.num_labels", 1),
        ({"hf_overrides": '{"num_labels": 1}'}, "hf_overrides.num_labels", 1),
        ({"hf-overrides.head_dtype": "bfloat16"}, "hf_overrides.head_dtype", "bfloat16"),
        ({"hf-overrides.a_b.c_d": "x"}, "hf_overrides.a_b.c_d", "x"),
        ({"hf-overrides": '{"a": {"b": 1}}', "hf_overrides.a.c": "null"}, "hf_overrides.a",
         {"b": 1, "c": None}),
        ({"hf-overrides.a": "1", "hf_overrides": {"a": 2}}, "hf_overrides.a", 2),
        ({"hf-overrides.num_labels": "1"}, "hf_overrides.head_dtype", "float32"),
        ({"compilation-config.use_inductor_graph_partition": "true"},
         "compilation_config.use_inductor_graph_partition", True),
        ({"compilation_config.use_inductor_graph_partition": False},
         "compilation_config.use_inductor_graph_partition", False),
        ({"compilation-config.custom_ops+": "none,+quant_fp8"}, "compilation_config.custom_ops",
         ["none", "+quant_fp8"]),
        ({"cc.use_inductor_graph_partition": True},
         "compilation_config.use_inductor_graph_partition", True),
        ({"enable-prefix-caching": "false"}, "enable_prefix_caching", False),
        ({"no-enable-prefix-caching": True}, "enable_prefix_caching", False),
        ({"no_enable_prefix_caching": "false"}, "enable_prefix_caching", True),
        ({}, "enable_prefix_caching", True),
        ({"enforce_eager": False}, "enforce_eager", False),
        ({"disable-log-stats": "True"}, "disable_log_stats", True),
        ({"tp": 1}, "tensor_parallel_size", 1),
        ({"max-num-seqs": 7}, "max_num_seqs", 7),
        ({"max_num_seqs": "7"}, "max_num_seqs", 7),
        ({"seed": -1}, "seed", -1),
        ({"served-model-name": ["a", "b"]}, "served_model_name", ["a", "b"]),
        ({"served-model-name": "--odd.name"}, "served_model_name", ["--odd.name"]),
    ],
)  # fmt: skip
def test_an_option_means_the_same_in_every_spelling(
    options: dict[str, Any], name: str, expected: Any
) -> None:
    first, *parts = name.split(".")
    found = getattr(made(**options), first)
    for part in parts:
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == expected


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"no-such-thing": "1"}, "--engine.no-such-thing"),
        ({"max-num-seqs": "many"}, "--engine.max-num-seqs"),
        ({"dtype": True}, "--engine.dtype"),
        ({"enforce-eager": "perhaps"}, "perhaps"),
        ({"runner": "generate"}, "decided by fivescore"),
        ({"pooler_config.pooling_type": "CLS"}, "decided by fivescore"),
        ({"hf-overrides": "[1]", "hf-overrides.a": "1"}, "JSON object"),
    ],
)
def test_a_mistake_names_the_option(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        made(**options)


@pytest.mark.parametrize(
    ("options", "worker"),
    [({}, "fivescore.engine.vllm.gpu_worker.Worker"), ({"worker-cls": "auto"}, "auto")],
)
def test_a_gpu_has_our_worker_unless_another_is_named(
    options: dict[str, str], worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = arguments.current_platform
    monkeypatch.setattr(type(found), "is_cpu", lambda self: False)
    monkeypatch.setattr(type(found), "is_cuda_alike", lambda self: True)
    assert made(**options).worker_cls == worker
    module, _, name = arguments.GPU_WORKER.rpartition(".")
    ours = getattr(importlib.import_module(module), name)
    theirs = importlib.import_module("vllm.v1.worker.gpu_worker").Worker
    assert ours.__mro__.index(GpuZeroing) < ours.__mro__.index(theirs)
