"""Measure time and memory of a fit to token features; prints goals and verdicts.

``python token_speed.py`` needs no data: the features are random.
"""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from plug_sklearn import PlugTokenClassifier

N_TEXTS, N_TOKENS, N_FEATURES = 1000, 100, 576
N_EPOCHS, BATCH_SIZE, N_MEMBERS, N_HEADS, N_RECENT = 15, 32, 5, 8, 8
N_REPEATS = 3
MOST_TIME, MOST_MEMORY = 1.3, 0.3


def make_texts(dtype: str = "float32") -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Draw texts of 100 tokens, and labels."""
    rng = np.random.default_rng(0)
    texts = np.empty(N_TEXTS, dtype=object)
    for number in range(N_TEXTS):
        drawn = rng.standard_normal((N_TOKENS, N_FEATURES), dtype=np.float32)
        texts[number] = drawn.astype(dtype)
    return texts, np.arange(N_TEXTS) % 2


def fit_ours(
    texts: NDArray[np.object_], y: NDArray[np.int64], n_epochs: int = N_EPOCHS
) -> PlugTokenClassifier:
    """Train for all epochs, scoring the held-out rows after each."""
    probe = PlugTokenClassifier(
        max_epochs=n_epochs, patience=n_epochs, random_state=0, device="cpu"
    )
    return probe.fit(texts, y)


def read_by_hand(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Give the logits (n, members, 3) of the mean, the last token and the heads."""
    every = torch.cat([weights["q"], weights["v"], weights["w"]], dim=1)
    scores = (x.flatten(end_dim=1) @ every).view(*x.shape[:2], N_MEMBERS, -1)
    queries, values = scores[..., :N_HEADS], scores[..., N_HEADS : 2 * N_HEADS]
    recent = F.pad(weights["recency"].flip(2), (x.shape[1] - N_RECENT, 0))
    shares = (queries + recent.permute(2, 0, 1)).movedim(1, -1).softmax(dim=-1)
    heads = (shares * values.movedim(1, -1)).sum(dim=-1).sum(dim=-1)
    mean, last = scores[..., -2].mean(dim=1), scores[:, -1, :, -1]
    return torch.stack([mean, last, heads], dim=2) + weights["bias"]


def fit_by_hand(texts: NDArray[np.object_], y: NDArray[np.int64]) -> dict[str, Tensor]:
    """Train such probes for the same epochs in a loop of torch's own calls."""
    generator = torch.Generator().manual_seed(0)
    arrays = [torch.from_numpy(text) for text in texts]
    total = sum(array.sum(0) for array in arrays) / (N_TEXTS * N_TOKENS)
    squares = sum((array - total).square().sum(0) for array in arrays)
    scale = (squares / (N_TEXTS * N_TOKENS)).rsqrt()
    sizes = {"q": N_MEMBERS * N_HEADS, "v": N_MEMBERS * N_HEADS, "w": N_MEMBERS * 2}
    weights = {
        name: 1e-3 * torch.randn(N_FEATURES, size, generator=generator)
        for name, size in sizes.items()
    }
    weights["recency"] = torch.zeros(N_MEMBERS, N_HEADS, N_RECENT)
    weights["bias"] = torch.zeros(N_MEMBERS, 3)
    for name in ("q", "v", "w"):
        columns = weights[name].view(N_FEATURES, N_MEMBERS, -1)
        weights[name] = columns.flatten(1)
    for value in weights.values():
        value.requires_grad_()
    optimizer = torch.optim.AdamW(weights.values(), lr=1e-3, fused=True)
    labels = torch.from_numpy(y).float()
    folds = torch.randperm(N_TEXTS, generator=generator) % N_MEMBERS
    is_trained = (folds[:, None] != torch.arange(N_MEMBERS)).float()

    def read(rows: Tensor) -> tuple[Tensor, Tensor]:
        batch = torch.stack([arrays[row] for row in rows.tolist()])
        batch.sub_(total).mul_(scale)
        logits = read_by_hand(batch, weights)
        target = labels[rows][:, None, None].expand_as(logits)
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return logits, losses

    for _ in range(N_EPOCHS):
        order = torch.randperm(N_TEXTS, generator=generator)
        for rows in order.split(BATCH_SIZE):
            optimizer.zero_grad()
            _, losses = read(rows)
            (losses * is_trained[rows][:, :, None]).mean().backward()
            optimizer.step()
        with torch.no_grad():
            parts = [read(rows) for rows in torch.arange(N_TEXTS).split(BATCH_SIZE)]
            logits, losses = (torch.cat(part) for part in zip(*parts, strict=True))
            own = is_trained == 0
            mixture = (-losses[own].sum(dim=0) / 4).softmax(dim=0)
            roc_auc_score(y, logits[own] @ mixture)
    return weights


def compare_times() -> float:
    """Time both in turn on the processor, and give the ratio of the medians."""
    texts, y = make_texts()
    # The first optimizer of a process makes torch import its compiler: about a second.
    fit_ours(texts[:40], y[:40], n_epochs=1)
    seconds: dict[str, list[float]] = {"ours": [], "by hand": []}
    for _ in range(N_REPEATS):
        for name, task in (("ours", fit_ours), ("by hand", fit_by_hand)):
            start = process_time()
            task(texts, y)
            seconds[name].append(process_time() - start)
    middle = {name: median(values) for name, values in seconds.items()}
    print({name: round(value, 2) for name, value in middle.items()})
    return middle["ours"] / middle["by hand"]


def find_peak() -> int:
    """Find the most memory that this process has had, in bytes; on Linux."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def measure_memory(dtype: str) -> float:
    """Measure what a fit adds to the memory, as a fraction of the features."""
    small, y = make_texts()
    fit_ours(small[:40], y[:40], n_epochs=1)
    del small
    texts, y = make_texts(dtype)
    n_bytes = sum(text.nbytes for text in texts)
    before = find_peak()
    now = 1024 * int(
        Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]
    )
    probe = fit_ours(texts, y, n_epochs=2)
    probe.predict_proba(texts)
    # What was free below the earlier peak counts too.
    return (find_peak() - min(before, now)) / n_bytes


def main() -> int:
    """Measure all, and compare with the goals."""
    time = compare_times()
    print(f"time: {time:.2f} x of a loop by hand, goal {MOST_TIME}")
    is_met = time <= MOST_TIME
    for dtype in ("float32", "float16"):
        command = [sys.executable, __file__, dtype]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        memory = float(json.loads(answer.stdout))
        print(f"memory: {memory:.2f} x of {dtype} features, goal {MOST_MEMORY}")
        is_met = is_met and memory <= MOST_MEMORY
    return int(not is_met)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        print(json.dumps(measure_memory(sys.argv[1])))
    else:
        sys.exit(main())
