"""Remember the outcomes of models' trials between processes, in the user's cache.

A trial takes longer than a short ``transform``. Its outcome is kept under a digest of
all that it depends on: the model's commit or the state of its files, how its weights
are loaded, the code of this package, the versions of others, and the machine. What
cannot be read, or has been damaged, counts as not there.
"""

import json
import os
import platform
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from plug_sklearn._packages import find_version
from plug_sklearn.embedding.models import CACHE
from plug_sklearn.embedding.passes._forward import ForwardPass

#: Packages that compute states, or replace the code that does.
_PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "bitsandbytes",
    "causal-conv1d",
    "fla-core",
    "flash-attn",
    "flash-linear-attention",
    "kernels",
    "mamba-ssm",
    "numpy",
    "peft",
    "xformers",
)

Outcome = Mapping[str, Any]


def describe_trial(forward: ForwardPass) -> str | None:
    """Describe all that a trial's outcome depends on; None if that is not known."""
    loaded, request = forward.loaded, forward.request
    if loaded.identity is None:
        return None
    device = loaded.input_device
    cards = [
        torch.cuda.get_device_name(card) for card in range(torch.cuda.device_count())
    ]
    described = {
        "model": loaded.identity,
        "anatomy": repr(forward.anatomy),
        "stack": request.stack,
        "deepest": max(request.layers),
        "code": _digest_code(),
        "versions": {name: find_version(name) for name in _PACKAGES},
        "device": [device.type, *(cards if device.type == "cuda" else [])],
        "processor": [platform.machine(), torch.backends.cpu.get_cpu_capability()],
        "precision": torch.get_float32_matmul_precision(),
    }
    return json.dumps(described, sort_keys=True)


def recall_outcome(description: str) -> Outcome | None:
    """Return the outcome that is remembered, or None."""
    try:
        digest, _, text = _find_file(description).read_text().partition("\n")
        held = json.loads(text) if digest == _digest(text) else {}
    except (OSError, ValueError):
        return None
    outcome: Outcome | None = held.get(description)
    return outcome


def remember_outcome(description: str, outcome: Outcome) -> None:
    """Remember an outcome, where the cache can be written."""
    text = json.dumps({description: outcome})
    path = _find_file(description)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_text(f"{_digest(text)}\n{text}")
            # Another process reads all of a file, or none.
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def _find_file(description: str) -> Path:
    return CACHE / "trials" / f"{_digest(description)}.json"


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).digest().hex()


@cache
def _digest_code() -> str:
    """Digest the code of this package that reads models."""
    digest = blake2b(digest_size=16)
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
