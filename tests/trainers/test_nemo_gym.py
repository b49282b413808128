"""NeMo-Gym asks for rewards with its own code."""

from tests.trainers.scenarios import Scenarios
from tests.trainers.trainer import Trainer


class TestNemoGym(Scenarios):
    trainer = Trainer(
        "nemo_gym",
        "NeMo-Gym",
        "its servers by `RunHelper.start`: `SimpleAgent`, `VLLMModel` and our resources server;"
        " then `RolloutCollectionHelper.run_from_config`",
        row="NeMo-RL with NeMo-Gym",
        markers=True,
        emulated="vLLM: an endpoint gives the responses; Python and `openai` are of fivescore's"
        " installation, where NeMo-Gym asks for 3.13 and 2.7",
    )
