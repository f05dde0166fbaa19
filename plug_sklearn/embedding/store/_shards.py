"""Shards: prompts of one model and layout in a safetensors file, and their index."""

import json
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plug_sklearn._activations import Part, Pooling
from plug_sklearn.embedding.store._database import StoreError
from plug_sklearn.embedding.store._layouts import Layout
from plug_sklearn.embedding.store._settings import KEY_SIZE

INDEX = "index.json"
#: Changes when anything is written differently.
FORMAT: Literal[1] = 1
_FILE = r"^shard-[0-9]{5}\.safetensors$"
#: How safetensors names the dtypes that it gives back.
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
#: What is held of a prompt: its digest and the bytes of its vectors.
Prompt = tuple[bytes, bytes]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Model(_Strict):
    """A model, and what else its activations depend on."""

    model: str
    settings: dict[str, Any]


class Shard(_Strict):
    """What a file holds: prompts of the model of a number, each with these slots."""

    file: Annotated[str, Field(pattern=_FILE)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    model: Annotated[int, Field(ge=0)]
    dtype: Literal["float32", "float16", "bfloat16"]
    hidden_size: Annotated[int, Field(ge=1, le=2**24)]
    slots: Annotated[
        list[tuple[Annotated[int, Field(ge=0, lt=2**16)], Part, Pooling | None]],
        Field(min_length=1),
    ]
    n_prompts: Annotated[int, Field(ge=1)]

    @property
    def layout(self) -> Layout:
        """The layout of each prompt."""
        return Layout(self.dtype, self.hidden_size, tuple(self.slots))


class Index(_Strict):
    """The whole ``index.json``."""

    format: Literal[1]
    models: list[Model]
    shards: list[Shard]


def write_shard(
    path: Path, model: int, layout: Layout, prompts: Iterable[Prompt]
) -> Shard:
    """Write prompts of one model and layout to a file."""
    digests, vectors = zip(*prompts, strict=True)
    sizes = np.array([len(item) for item in vectors], dtype=np.int64)
    joined = bytearray(b"".join(vectors))
    dtype = getattr(torch, layout.dtype)
    data = safetensors.torch.save(
        {
            "digests": _view(bytearray(b"".join(digests)), torch.uint8, KEY_SIZE),
            "n_bytes": torch.from_numpy(sizes),
            "vectors": _view(joined, dtype, layout.hidden_size),
        }
    )
    path.write_bytes(data)
    return Shard(
        file=path.name,
        sha256=sha256(data).hexdigest(),
        model=model,
        dtype=layout.dtype,  # type: ignore[arg-type]  # a store has no others
        hidden_size=layout.hidden_size,
        slots=list(layout.slots),  # type: ignore[arg-type]  # as above
        n_prompts=len(digests),
    )


def _view(data: bytearray, dtype: torch.dtype, n_columns: int) -> torch.Tensor:
    return torch.frombuffer(data, dtype=dtype).view(-1, n_columns)


def read_shard(folder: Path, shard: Shard) -> Iterator[Prompt]:
    """Read the prompts of a file, which is checked first.

    Raises a StoreError if it is not what the index describes.
    """
    path = folder / shard.file
    data = path.read_bytes()
    if sha256(data).hexdigest() != shard.sha256:
        raise StoreError(f"{path} is not what was exported: its checksum differs.")
    try:
        found = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]  # as above
    except safetensors.SafetensorError as error:
        raise StoreError(f"{path} is no complete safetensors file: {error}.") from None
    n = shard.n_prompts
    expected: dict[str, tuple[str, list[int]]] = {
        "digests": ("U8", [n, KEY_SIZE]),
        "n_bytes": ("I64", [n]),
    }
    kinds = {name: (item["dtype"], item["shape"]) for name, item in found.items()}
    vectors = kinds.pop("vectors", None)
    is_right = vectors is not None and vectors[0] == _TYPES[shard.dtype]
    if kinds != expected or not is_right:
        raise StoreError(f"{path} does not hold the tensors that its index names.")
    layout = shard.layout
    sizes = np.frombuffer(found["n_bytes"]["data"], "<i8").tolist()
    content = bytes(found["vectors"]["data"])
    if not all(layout.is_size(size) for size in sizes) or sum(sizes) != len(content):
        raise StoreError(f"{path} holds vectors of other sizes than its index names.")
    digests = bytes(found["digests"]["data"])
    ends = np.cumsum([0, *sizes]).tolist()
    for number, (start, end) in enumerate(pairwise(ends)):
        place = number * KEY_SIZE
        yield digests[place : place + KEY_SIZE], content[start:end]


def write_index(path: Path, index: Index) -> None:
    """Write the index; it comes last, so that an export with it is whole."""
    path.write_text(json.dumps(index.model_dump(), indent=1) + "\n", encoding="utf-8")


def read_index(path: Path) -> Index:
    """Read an index. Raises a StoreError if it is none."""
    try:
        index = Index.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = re.sub(r"\s+", " ", str(error))[:200]
        raise StoreError(
            f"{path} is no index of exported activations: {first}"
        ) from None
    if any(shard.model >= len(index.models) for shard in index.shards):
        raise StoreError(f"{path} is no index: a shard is of a model that it lacks.")
    return index
