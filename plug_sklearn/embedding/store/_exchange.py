"""Move activations from one store to another, as files that anyone can read."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding.store import _settings
from plug_sklearn.embedding.store._database import StoreError
from plug_sklearn.embedding.store._folder import StoreFolder
from plug_sklearn.embedding.store._layouts import Layout
from plug_sklearn.embedding.store._records import open_records
from plug_sklearn.embedding.store._shards import (
    FORMAT,
    INDEX,
    Index,
    Model,
    Prompt,
    Shard,
    read_index,
    read_shard,
    write_index,
    write_shard,
)
from plug_sklearn.embedding.store._vectors import decode, encode

#: Bytes of vectors in a shard, which is held in memory as a whole.
_SHARD_SIZE = 2**28


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
            Folder for the files, which is made if needed. It must not contain an
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
            for digest, layout, vectors in records.list_right():
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
                raise StoreError(f"The store {self.path} could not note a model.")
            for digest, vectors in prompts:
                data = memoryview(vectors)
                if layout.dtype != dtype:
                    states = decode(layout.unpack(data), layout.dtype)
                    data = memoryview(encode(states, dtype).tobytes())
                records.add(digest, own, data)


def _read_path(path: object, owner: str) -> Path:
    if not isinstance(path, str | Path):
        raise TypeError(
            f"The 'path' parameter of ActivationStore.{owner} must be a str or a Path. "
            f"Got {path!r} instead."
        )
    return Path(path).expanduser()
