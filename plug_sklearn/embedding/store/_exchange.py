"""Move activations from one store to another, as files that anyone can read.

An export is a folder of safetensors files, the shards, each with prompts of one model
and layout, and their index.
"""

import json
import re
from collections import Counter
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
from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding.store import _settings
from plug_sklearn.embedding.store._database import StoreError
from plug_sklearn.embedding.store._folder import StoreFolder
from plug_sklearn.embedding.store._layouts import Layout
from plug_sklearn.embedding.store._records import open_records
from plug_sklearn.embedding.store._settings import KEY_SIZE
from plug_sklearn.embedding.store._vectors import decode, encode

INDEX = "index.json"
#: Changes when anything is written differently.
FORMAT: Literal[1] = 1
_FILE = r"^shard-[0-9]{5}\.safetensors$"
#: How safetensors names the dtypes that it gives back.
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
#: What is held of a prompt: its digest and the bytes of its vectors.
Prompt = tuple[bytes, bytes]
#: Bytes of vectors in a shard, which is held in memory as a whole.
_SHARD_SIZE = 2**28


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
        raise StoreError(
            f"{path} is not a complete safetensors file: {error}."
        ) from None
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
    sizes = np.frombuffer(found["n_bytes"]["data"], "<i8")
    content = bytes(found["vectors"]["data"])
    if not layout.are_sizes(sizes).all() or sum(sizes.tolist()) != len(content):
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
            f"{path} is not an index of exported activations: {first}"
        ) from None
    if any(shard.model >= len(index.models) for shard in index.shards):
        raise StoreError(
            f"{path} is not a valid index: a shard belongs to a model that the index "
            "does not list."
        )
    return index


class StoreExchange(StoreFolder):
    """Export and import of a store.

    :class:`ActivationStore` documents the parameters.
    """

    def export(self, path: str | Path, *, model: str | None = None) -> Path:
        """Write activations to safetensors files with an index.

        Someone who has the texts, but not the model's weights, can import them, and
        train probes. The files hold no texts, only digests of them.

        Parameters
        ----------
        path : str or Path
            Folder for the files, which is created if needed. It must not contain an
            export.
        model : str, default=None
            Only export activations of this model, by its name in ``contents``; None:
            all.

        Returns
        -------
        Path
            ``index.json`` in the folder. It lists models, settings, and for each shard
            its file, checksum, layers, parts and poolings.

        Raises
        ------
        FileExistsError
            If the folder already contains an export.
        ValueError
            If the store is empty, or holds nothing of this model.

        Warns
        -----
        UserWarning
            If records are damaged. They are left out.
        """
        folder = _read_path(path, "export")
        if (folder / INDEX).exists():
            raise FileExistsError(
                "The 'path' parameter of ActivationStore.export must be a folder "
                f"without an export. Found {INDEX} in {folder}."
            )
        contents = self.contents()
        if not contents:
            raise ValueError(
                f"The activation store {str(self.path)!r} holds nothing to export."
            )
        held = [one for one in contents if model in (None, one.model)]
        if not held:
            names = sorted({one.model for one in contents})
            raise ValueError(
                "The 'model' parameter of ActivationStore.export must be None or one "
                f"of {names}. Got {model!r} instead."
            )
        folder.mkdir(parents=True, exist_ok=True)
        shards: list[Shard] = []
        for number, stored in enumerate(held):
            for layout, prompts in self._cut(stored.model, stored.settings):
                file = folder / f"shard-{len(shards):05d}.safetensors"
                shards.append(write_shard(file, number, layout, prompts))
        models = [Model(model=one.model, settings=one.settings) for one in held]
        index = Index(format=FORMAT, models=models, shards=shards)
        write_index(folder / INDEX, index)
        return folder / INDEX

    def import_(self, path: str | Path) -> int:
        """Add the activations of an export to this store.

        Activations that the store already holds are kept. Every file is checked against
        the index. The files cannot run code.

        Parameters
        ----------
        path : str or Path
            Folder that ``export`` wrote, or its ``index.json``.

        Returns
        -------
        int
            Number of distinct prompts that were read, counted for each model and
            settings.

        Raises
        ------
        FileNotFoundError
            If a file is missing.
        StoreError
            If a file is not part of an export, or was changed.
        """
        self._check_writable()
        index_path = _read_path(path, "import_")
        if index_path.name != INDEX:
            index_path = index_path / INDEX
        if not index_path.is_file():
            raise FileNotFoundError(
                "The 'path' parameter of ActivationStore.import_ must be a folder that "
                f"ActivationStore.export wrote. There is no {INDEX} in "
                f"{str(index_path.parent)!r}."
            )
        index = read_index(index_path)
        read: set[tuple[int, bytes]] = set()
        for shard in index.shards:
            of = index.models[shard.model]
            key = self.register(of.model, **of.settings)
            prompts = list(read_shard(index_path.parent, shard))
            self._add(key, shard.layout, prompts)
            read.update((shard.model, digest) for digest, _ in prompts)
        return len(read)

    def _cut(
        self, model: str, settings: dict[str, object]
    ) -> Iterator[tuple[Layout, list[Prompt]]]:
        """Yield prompts of one layout, as many as go into a shard."""
        description = _settings.describe_settings(model, settings).encode()
        key = _settings.digest_settings(description)
        waiting: dict[bytes, tuple[Layout, list[Prompt]]] = {}
        sizes: Counter[bytes] = Counter()
        with (
            self._read() as connection,
            open_records(connection, self.path, key) as records,
        ):
            for digest, layout, vectors in records.list_all():
                kind = layout.description
                _, prompts = waiting.setdefault(kind, (layout, []))
                prompts.append((digest, vectors))
                sizes[kind] += len(vectors)
                if sizes[kind] >= _SHARD_SIZE:
                    del sizes[kind]
                    yield waiting.pop(kind)
        if records.n_damaged:
            warn_user(
                f"{records.n_damaged} damaged records were found in the activation "
                f"store {str(self.path)!r}. They are not exported."
            )
        yield from waiting.values()

    def _add(self, key: bytes, layout: Layout, prompts: list[Prompt]) -> None:
        dtype = self.dtype
        own = Layout(dtype, layout.hidden_size, layout.slots)
        with (
            self._write() as connection,
            open_records(connection, self.path, key, write=True) as records,
        ):
            if not records.are_known:
                raise StoreError(f"The store {self.path} could not record a model.")
            digests, data = [], []
            for digest, vectors in prompts:
                if layout.dtype != dtype:
                    states = decode(layout.unpack(memoryview(vectors)), layout.dtype)
                    vectors = encode(states, dtype).tobytes()
                digests.append(digest)
                data.append(memoryview(vectors))
            records.add(digests, own, data)


def _read_path(path: object, owner: str) -> Path:
    if not isinstance(path, str | Path):
        raise TypeError(
            f"The 'path' parameter of ActivationStore.{owner} must be a str or a Path. "
            f"Got {path!r} instead."
        )
    return Path(path).expanduser()
