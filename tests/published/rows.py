"""The rows: every kind of published reward model that is served, but NeMo's."""

from __future__ import annotations

from tests.published import adapters, gated, linear, mlp, token_logits
from tests.published.published import Row

ROWS = {
    "Skywork (Llama)": Row("linear", linear.skywork_llama),
    "Skywork (Qwen 3)": Row("linear", linear.skywork_qwen3),
    "Skywork (Gemma 2)": Row("linear", linear.skywork_gemma2),
    "Tulu 3, RewardBench 2": Row("linear", linear.tulu),
    "FsfairX": Row("linear", linear.fsfairx),
    "OpenRLHF, score": Row("linear", linear.openrlhf_score),
    "OpenRLHF, value_head": Row("linear", linear.openrlhf_value_head),
    "TRL, pad is EOS": Row("linear", linear.trl),
    "LLaMA-Factory": Row("linear", linear.llama_factory),
    "LLaMA-Factory, sharded": Row("linear", linear.llama_factory_sharded),
    "LLaMA-Factory, .bin": Row("linear", linear.llama_factory_bin),
    "ms-swift": Row("linear", linear.ms_swift),
    "Athene": Row("linear", linear.athene),
    "internlm2": Row("linear", linear.internlm2_reward),
    "PEFT, a classifier": Row("linear", adapters.classifier),
    "PEFT, a value head": Row("linear", adapters.value_head),
    "Llama-3.1-Nemotron-Reward": Row("token", token_logits.nemotron_31),
    "Llama-3.3-Nemotron-Reward": Row("token", token_logits.nemotron_33),
    "Llama-3.3-Nemotron-Principle": Row("token", token_logits.nemotron_33_principle),
    "INF-ORM": Row("mlp", mlp.inf_orm),
    "Qwen2.5-Math-RM": Row("mlp", mlp.qwen25_math_rm),
    "GRM sftreg": Row("mlp", mlp.grm_sftreg),
    "ArmoRM": Row("gated", gated.armorm),
    "QRM": Row("gated", gated.qrm),
    "QRM (Gemma 2)": Row("gated", gated.qrm_gemma),
    "URM": Row("gated", gated.urm),
}
SAMPLE = ("OpenRLHF, value_head", "Llama-3.3-Nemotron-Reward", "GRM sftreg", "ArmoRM")
"""What the tests run: one of each kind of head."""
DIRECT = ("Skywork (Llama)", "Skywork (Qwen 3)", "Skywork (Gemma 2)", "Tulu 3, RewardBench 2",
          "FsfairX", "ms-swift", "Llama-3.1-Nemotron-Reward", "Llama-3.3-Nemotron-Reward",
          "Llama-3.3-Nemotron-Principle")  # fmt: skip
"""What is served without an import too."""
IN_PARALLEL = ("TRL, pad is EOS", "Llama-3.3-Nemotron-Principle", "INF-ORM", "ArmoRM")
"""One of each kind of head, for tensor parallelism."""
