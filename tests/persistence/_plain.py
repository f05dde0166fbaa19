"""Plain torch modules of pingkit's shapes, and files of them in its layout."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

MLP: dict[str, Any] = {
    "model_type": "mlp",
    "num_classes": 2,
    "input_dim": 6,
    "n_examples": 30,
    "target_ratio": 5.0,
    "p_drop": 0.3,
    "width_cap": 128,
}
CNN: dict[str, Any] = {
    "model_type": "cnn",
    "num_classes": 3,
    "parts": ["rs", "attn"],
    "layers": [0, 4, 9],
    "hidden_size": 8,
    "n_examples": 48,
    "target_ratio": 5.0,
    "p_drop": 0.3,
    "width_cap": 64,
    "proj_mult": 2,
}


def block(n_in: int, n_out: int) -> nn.Sequential:
    """Linear, batch norm, ReLU and dropout."""
    layers = nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU(), nn.Dropout(0.3)
    return nn.Sequential(*layers)


class PlainMLP(nn.Module):
    """The residual MLP: blocks of ``first``, ``second`` and ``last`` units."""

    def __init__(self, first: int, second: int, last: int) -> None:
        super().__init__()
        self.fc1 = block(6, first)
        self.fc2 = block(first, second)
        self.res = nn.Sequential(block(second, second), nn.Linear(second, second))
        self.out = nn.Sequential(block(second, last), nn.Linear(last, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 6) to logits."""
        hidden = self.fc2(self.fc1(x))
        logits: Tensor = self.out(hidden + self.res(hidden))
        return logits


class PlainCNN(nn.Module):
    """The CNN over units, of 3 layers of channels, with ``base`` channels at first."""

    def __init__(self, base: int, n_parts: int) -> None:
        super().__init__()
        self.n_parts = n_parts
        self.encoder = nn.Module()
        self.encoder.layer_norm = nn.LayerNorm(8)
        if n_parts == 1:
            one = nn.Conv1d(3, base, 5, padding=2), nn.BatchNorm1d(base), nn.ReLU()
            two = nn.Conv1d(base, 2 * base, 3, padding=1), nn.BatchNorm1d(2 * base)
            three = nn.ReLU(), nn.Conv1d(2 * base, 32, 1), nn.ReLU()
            pool: nn.Module = nn.AdaptiveAvgPool1d(1)
        else:
            height = min(n_parts, 3)
            wide = nn.Conv2d(3, base, (height, 5), padding=(height // 2, 2))
            one = wide, nn.BatchNorm2d(base), nn.ReLU()
            two = nn.Conv2d(base, 2 * base, 1), nn.BatchNorm2d(2 * base)
            three = nn.ReLU(), nn.Conv2d(2 * base, 32, 1), nn.ReLU()
            pool = nn.AdaptiveAvgPool2d(1)
        self.encoder.backbone = nn.Sequential(
            *one, *two, *three, pool, nn.Flatten(), nn.Dropout(0.3)
        )
        head = nn.Linear(32, 32), nn.ReLU(), nn.Dropout(0.3)
        last = nn.Linear(32, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 3)
        self.classifier = nn.Sequential(*head, *last)

    def forward(self, x: Tensor) -> Tensor:
        """Map flat samples to logits."""
        parts = [self.n_parts] if self.n_parts > 1 else []
        x = self.encoder.layer_norm(x.reshape(len(x), 3, *parts, 8))
        logits: Tensor = self.classifier(self.encoder.backbone(x))
        return logits


def write(path: Path, module: nn.Module, description: dict[str, Any]) -> None:
    """Give a module weights and statistics that show, and write both files."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value.normal_(0, 0.5, generator=generator)
            if name.endswith("var"):
                value.abs_().add_(0.5)
    torch.save(module.state_dict(), path.with_suffix(".pt"))
    path.with_suffix(".json").write_text(json.dumps(description))
