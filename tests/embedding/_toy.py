"""A model of a family that nobody knows."""

import torch
from _families import shake_weights
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class ToyConfig(PreTrainedConfig):
    """Sizes of a toy, and what its blocks multiply the residual stream by."""

    model_type = "toy"

    def __init__(
        self, decay: float = 1.0, mode: str = "sound", **settings: object
    ) -> None:
        self.hidden_size = 16
        self.num_hidden_layers = 3
        self.vocab_size = 99
        self.decay = decay
        self.mode = mode
        super().__init__(**settings)


class ToyBlock(nn.Module):
    """``y = decay * x + look(x) + think(x)``, with dropout in front."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.decay = config.decay
        self.dropout = nn.Dropout(0.5)
        self.look = nn.Linear(16, 16)
        self.think = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 16))

    def forward(self, states: Tensor) -> tuple[Tensor, None]:
        """Map states of shape (texts, tokens, 16)."""
        states = self.dropout(states)
        return self.decay * states + self.look(states) + self.think(states), None


class ToyModel(PreTrainedModel):
    """Blocks in a list whose name says nothing."""

    config_class = ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.steps = nn.ModuleList(
            ToyBlock(config) for _ in range(config.num_hidden_layers)
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Give the module that embeds token ids."""
        return self.words

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> BaseModelOutput:
        """Map token ids of shape (texts, tokens)."""
        states = self.words(input_ids)
        for step in self.steps:
            if self.config.mode == "refuses":
                raise RuntimeError("no images were given")
            if self.config.mode == "unlinked":
                states = step(states + 1)[0]
            elif self.config.mode == "tokens first":
                states = step(states.transpose(0, 1))[0].transpose(0, 1)
            elif self.config.mode == "flat":
                states = step(states.flatten(0, 1))[0].view(*input_ids.shape, -1)
            else:
                states = step(states)[0]
        return BaseModelOutput(last_hidden_state=states)


def build_toy(decay: float = 1.0, mode: str = "sound") -> ToyModel:
    """Build a toy, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ToyModel(ToyConfig(decay, mode))
    shake_weights(model)
    return model.eval()
