import pytest
import torch
from torch import Tensor, nn

from plug_sklearn.embedding.anatomy._contributions import (
    Contributions,
    find_contributions,
)
from plug_sklearn.embedding.anatomy._tracing import Call, Trace


class Block(nn.Module):
    """Adds what two linear layers give to its input, in one of several ways."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.multiplier = kind, 0.37
        self.norm, self.last_norm = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attn, self.mlp = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, states: Tensor) -> Tensor:
        """Map states of shape (texts, tokens, 16)."""
        if self.kind == "parallel":
            return states + self.attn(states) + self.mlp(self.norm(states))
        scale = {"scaled": self.multiplier, "divided": 1 / self.multiplier}
        factor = scale.get(self.kind, 1.0)
        added = states + factor * self.attn(states)
        if self.kind == "post-norm":
            added = self.norm(added)
            return self.last_norm(added + self.mlp(added))
        added = added + factor * self.mlp(self.norm(added))
        return 0.5 * added if self.kind == "shrunk" else added


def trace_block(kind: str) -> Trace:
    torch.manual_seed(0)
    block, calls = Block(kind), []
    for path, module in block.named_children():
        module.register_forward_hook(
            lambda module, args, output, path=path: calls.append(
                Call(path, type(module).__name__, args[0].clone(), output.clone())
            )
        )
    states = torch.randn(1, 8, 16)
    with torch.no_grad():
        return Trace(block, states, block(states), calls)


@pytest.mark.parametrize(
    ("kind", "scales", "rescaled"),
    [
        ("sequential", {}, False),
        ("parallel", {}, False),
        ("post-norm", {}, True),
        ("shrunk", {}, True),
        ("scaled", dict.fromkeys(("attn", "mlp"), "multiplier"), False),
        ("divided", dict.fromkeys(("attn", "mlp"), "1/multiplier"), False),
    ],
)
def test_what_adds_to_the_stream_is_found(
    kind: str, scales: dict[str, str], rescaled: bool
) -> None:
    with torch.random.fork_rng(devices=[]):
        found = find_contributions(trace_block(kind))
    assert found == Contributions(("attn", "mlp"), scales, rescaled)


def test_sum_that_is_off_by_more_than_rounding_is_not_found() -> None:
    with torch.random.fork_rng(devices=[]):
        trace = trace_block("sequential")
    trace.given += 1e-3 * trace.given.abs()
    assert find_contributions(trace) is None
