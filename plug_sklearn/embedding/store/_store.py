"""Activations on disk, by content: each distinct prompt is computed once."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from plug_sklearn.embedding.store import _catalog, _claims, _holdings
from plug_sklearn.embedding.store._catalog import StoredModel
from plug_sklearn.embedding.store._compaction import compact_file
from plug_sklearn.embedding.store._environments import Environment
from plug_sklearn.embedding.store._failures import StoreError, explain_errors
from plug_sklearn.embedding.store._mapping import Transaction
from plug_sklearn.embedding.store._records import (
    DTYPES,
    MOST_LAYERS,
    PART_NUMBERS,
    Slot,
    decode,
    encode,
    make_layout,
)
from plug_sklearn.embedding.store._registry import leave_environment, open_environment

#: Bytes in one transaction; it holds them in memory until they are on disk.
_TRANSACTION_SIZE = 2**26


class ActivationStore:
    """Activations on disk, found by the prompt, the model and its settings.

    Cross-validation embeds the same texts again for each fold and each candidate. With
    a store each distinct prompt goes through the language model once, over all threads
    and processes that use it.

    The store is a folder with one LMDB file. Any number of processes of one machine
    may read and write it at the same time, and be killed at any moment. Each vector
    has a checksum; one that is damaged counts as not held. Nothing in it is a pickle.
    The folder must be on a local disk: LMDB does not work on network file systems.

    A store can be pickled; the copy opens the same folder.

    Parameters
    ----------
    path : str or Path
        The folder; made if it is not there.
    readonly : bool, default=False
        Whether nothing may be written. The folder must then be there; it may be one
        that the user has no right to write in, if no one else writes there either.
    dtype : {None, "float32", "float16", "bfloat16"}, default=None
        What the store keeps. None is what it has been made with, and float32 if it is
        new. The other two take half the room: states are rounded to them when they are
        written, and come back as the float32 nearest to what is kept.

    Attributes
    ----------
    path : Path
        The folder, absolute.

    Raises
    ------
    ValueError
        If ``dtype`` is none of these, or not the store's own.
    StoreError
        If the folder cannot be used; says why and what to do.

    See Also
    --------
    HFEmbeddingTransformer : Computes activations.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from hashlib import blake2b
    >>> from plug_sklearn.embedding import ActivationStore
    >>> folder = tempfile.TemporaryDirectory()
    >>> store = ActivationStore(folder.name)
    >>> settings = store.register("a-model", pooling="last")
    >>> digests = [
    ...     blake2b(prompt, digest_size=16).digest() for prompt in (b"Paris", b"Lima")
    ... ]
    >>> states = np.ones((2, 3, 1, 8), dtype=np.float32)  # 3 layers, 1 part, 8 units
    >>> _ = store.write(settings, digests, [0, 1, 2], ["rs"], states)
    >>> out = np.empty((2, 1, 1, 8), dtype=np.float32)
    >>> missing = store.read_into(settings, digests, [2], ["rs"], out)
    >>> bool(missing.any()), bool((out == 1).all()), len(store)
    (False, True, 2)
    >>> [(held.model, held.settings, held.n_prompts) for held in store.contents()]
    [('a-model', {'pooling': 'last'}, 2)]
    >>> store.close()
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | Path,
        *,
        readonly: bool = False,
        dtype: str | None = None,
    ) -> None:
        if dtype is not None and dtype not in DTYPES:
            raise ValueError(
                f"The 'dtype' parameter of ActivationStore must be None or one of "
                f"{DTYPES}. Got {dtype!r} instead."
            )
        # A worker may run in another folder.
        self.path = Path(path).expanduser().absolute()
        self.readonly = readonly
        self._asked_dtype = dtype
        self._is_closed = False
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    @property
    def dtype(self) -> str:
        """What the store keeps: "float32", "float16" or "bfloat16"."""
        return self._open().dtype

    @property
    def n_bytes(self) -> int:
        """Bytes that the store takes on disk, with what waits to be used again."""
        environment = self._open()
        with explain_errors(self.path):
            found = environment.data_path.stat()
        # Where the file system tells it: the file may have holes.
        return 512 * getattr(found, "st_blocks", 0) or found.st_size

    def register(self, model: str, **settings: Any) -> bytes:  # noqa: ANN401 - any JSON
        """Give the key of a model and its settings.

        Parameters
        ----------
        model : str
            The model's name, with its revision where it has one.
        **settings : object
            All else that activations depend on, as JSON has it.

        Returns
        -------
        bytes
            16 bytes; equal for equal models and settings only.

        Raises
        ------
        TypeError
            If JSON cannot hold a setting.
        """
        key, text = _catalog.describe_settings(model, settings)
        if not self.readonly:
            _catalog.add_settings(self._open(), key, text)
        return key

    def read_into(
        self,
        settings: bytes,
        digests: Sequence[bytes],
        layers: Sequence[int],
        parts: Sequence[str],
        out: NDArray[np.float32],
        rows: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> NDArray[np.bool_]:
        """Read the activations of prompts into an array.

        Parameters
        ----------
        settings : bytes
            What ``register`` gave.
        digests : sequence of bytes
            16 bytes for each prompt.
        layers : sequence of int
            Layers to read, along axis 1.
        parts : sequence of str
            Parts to read, along axis 2.
        out : ndarray of shape (n_rows, n_layers, n_parts, hidden_size), float32
            Takes what is held; the rest of it stays as it is.
        rows : sequence of int, default=None
            The row of each prompt; None is one after another.

        Returns
        -------
        ndarray of shape (n, n_layers, n_parts), bool
            What is missing: never written, or damaged since.
        """
        slots = _list_slots(layers, parts)
        prompts = _name_prompts(settings, digests)
        rows = range(len(prompts)) if rows is None else [int(row) for row in rows]
        shape = (len(layers), len(parts))
        if not (
            out.dtype == np.float32
            and out.ndim == 4
            and out.shape[1:3] == shape
            and out.flags.c_contiguous
            and len(rows) == len(prompts)
            and max(rows, default=-1) < len(out)
        ):
            raise ValueError(
                "The 'out' parameter of ActivationStore.read_into must be a contiguous "
                f"float32 array of shape ({len(prompts)} rows or more, {shape[0]}, "
                f"{shape[1]}, hidden size). Got {out.dtype} {out.shape} instead."
            )
        flat = out.reshape(len(out), len(slots), out.shape[3])
        missing = self._open().read(
            lambda transaction: _holdings.read_rows(
                transaction, prompts, slots, flat, rows
            )
        )
        return missing.reshape(-1, *shape)

    def write(
        self,
        settings: bytes,
        digests: Sequence[bytes],
        layers: Sequence[int],
        parts: Sequence[str],
        states: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Add activations, keep what is there, and end this process's claims on them.

        Parameters
        ----------
        settings, digests, layers, parts : bytes, sequences of bytes, int and str
            As for ``read_into``.
        states : ndarray of shape (n, n_layers, n_parts, hidden_size), float32
            The activations. All of one prompt's share a record, and a call is one
            transaction for each 64 MiB: few large writes are fastest and smallest.

        Returns
        -------
        ndarray of shape (n, n_layers, n_parts, hidden_size), float32
            The activations as they will be read: rounded to the store's dtype.

        Raises
        ------
        FloatingPointError
            If a state is too large for the store's dtype.
        StoreError
            If the disk is full, for one. What earlier calls wrote is kept.
        """
        slots = _list_slots(layers, parts)
        prompts = _name_prompts(settings, digests)
        shape = (len(prompts), len(layers), len(parts))
        if states.ndim != 4 or states.shape[:3] != shape or not states.shape[3]:
            raise ValueError(
                "The 'states' parameter of ActivationStore.write must have the shape "
                f"{shape} and the hidden size. Got {states.shape} instead."
            )
        environment = self._open_for_writing()
        encoded = encode(states, environment.dtype)
        layout = make_layout(tuple(slots), states.shape[3], environment.dtype)
        vectors = encoded.reshape(len(prompts), len(slots) * states.shape[3])
        vectors = vectors.view(np.uint8)

        def add(transaction: Transaction, rows: Sequence[int]) -> None:
            if not _catalog.knows_settings(transaction, settings):
                raise ValueError(
                    "The 'settings' parameter of ActivationStore.write must be a key "
                    f"that register gave. Got {settings!r} instead."
                )
            for row in rows:
                _holdings.add_record(
                    transaction, prompts[row], layout, memoryview(vectors[row])
                )
            written = [prompts[row] for row in rows]
            _claims.delete_claims(transaction, environment.presence, written)

        # Neighbours in the tree are then neighbours in the file.
        order = sorted(range(len(prompts)), key=prompts.__getitem__)
        n_rows = max(1, _TRANSACTION_SIZE // layout.size)
        for begin in range(0, len(order), n_rows):
            environment.write(partial(add, rows=order[begin : begin + n_rows]))
        return decode(encoded, environment.dtype)

    def claim(
        self,
        settings: bytes,
        digests: Sequence[bytes],
        layers: Sequence[int],
        parts: Sequence[str],
        *,
        at_most: int | None = None,
    ) -> NDArray[np.bool_]:
        """Claim prompts that are neither held nor being computed.

        What is claimed is to be written, or released. Claims of a process end with it.

        Parameters
        ----------
        settings, digests, layers, parts : bytes, sequences of bytes, int and str
            As for ``read_into``.
        at_most : int, default=None
            How many to claim; None is all.

        Returns
        -------
        ndarray of shape (n,), bool
            What this caller is to compute. Of equal digests only the first is.
        """
        slots = _list_slots(layers, parts)
        prompts = _name_prompts(settings, digests)
        mine = _claims.take_claims(
            self._open_for_writing(),
            prompts,
            _holdings.make_holding_test(slots),
            at_most,
        )
        first = {prompt: row for row, prompt in reversed(list(enumerate(prompts)))}
        return np.array(
            [p in mine and first[p] == row for row, p in enumerate(prompts)], dtype=bool
        )

    def release(self, settings: bytes, digests: Sequence[bytes]) -> None:
        """Give up claims of this process, so that others may compute the prompts.

        Parameters
        ----------
        settings : bytes
            What ``register`` gave.
        digests : sequence of bytes
            16 bytes for each prompt.
        """
        prompts = _name_prompts(settings, digests)
        _claims.drop_claims(self._open_for_writing(), prompts)

    def wait(self, settings: bytes, digests: Sequence[bytes]) -> None:
        """Wait until no one computes any of some prompts.

        They are then held, or free to be claimed, as their claimant released them or
        died. Waits for all claims, also those of other threads and of the caller.

        Parameters
        ----------
        settings : bytes
            What ``register`` gave.
        digests : sequence of bytes
            16 bytes for each prompt.
        """
        _claims.wait_for_claims(self._open(), _name_prompts(settings, digests))

    def __len__(self) -> int:
        """Count the distinct prompts, each once for each model and settings."""
        return sum(stored.n_prompts for stored in self.contents())

    def contents(self) -> list[StoredModel]:
        """List what the store holds.

        Returns
        -------
        list of StoredModel
            One for each model and group of settings, sorted by model.
        """
        return self._open().read(_catalog.list_models)

    def delete(self, model: str) -> int:
        """Delete all activations of a model, whatever its settings.

        The room is used again; ``compact`` gives it back to the disk.

        Parameters
        ----------
        model : str
            The model, as given to ``register``.

        Returns
        -------
        int
            How many prompts were deleted.
        """
        return _catalog.delete_model(self._open_for_writing(), model)

    def compact(self) -> None:
        """Write the store anew, as small as it can be.

        Leaves out what was deleted or is damaged, and joins what was written of a
        prompt in several parts. Takes as much room as the store until it is done.

        Raises
        ------
        StoreError
            If another process has the store open, or there is no room; nothing is
            changed then.
        """
        compact_file(self._open_for_writing())

    def close(self) -> None:
        """Close this object; the process closes the file with the last of them."""
        if not self._is_closed:
            self._is_closed = True
            leave_environment(self.path, self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ActivationStore({str(self.path)!r}, readonly={self.readonly})"

    def _open(self) -> Environment:
        if self._is_closed:
            raise StoreError(f"The activation store {str(self.path)!r} was closed.")
        environment = open_environment(
            self.path, self, readonly=self.readonly, dtype=self._asked_dtype
        )
        if self._asked_dtype not in (None, environment.dtype):
            raise ValueError(
                "The 'dtype' parameter of ActivationStore must be None or the store's "
                f"own, {environment.dtype!r}. Got {self._asked_dtype!r} instead."
            )
        return environment

    def _open_for_writing(self) -> Environment:
        if self.readonly:
            raise StoreError(
                f"The activation store {str(self.path)!r} was opened with "
                "readonly=True. Open it without to change it."
            )
        return self._open()


def _list_slots(layers: Sequence[int], parts: Sequence[str]) -> list[Slot]:
    numbers = [int(layer) for layer in layers]
    known = all(0 <= layer < MOST_LAYERS for layer in numbers)
    if not known or len(set(numbers)) < max(1, len(numbers)):
        raise ValueError(
            "The 'layers' parameter of ActivationStore must be distinct numbers in "
            f"[0, {MOST_LAYERS}). Got {list(layers)} instead."
        )
    known = all(part in PART_NUMBERS for part in parts)
    if not known or len(set(parts)) < max(1, len(parts)):
        raise ValueError(
            "The 'parts' parameter of ActivationStore must be any of "
            f"{tuple(PART_NUMBERS)}, each named once. Got {list(parts)} instead."
        )
    return [(layer, PART_NUMBERS[part]) for layer in numbers for part in parts]


def _name_prompts(settings: bytes, digests: Sequence[bytes]) -> list[bytes]:
    for name, key in [("settings", settings), *(("digests", d) for d in digests)]:
        if len(key) != _holdings.KEY_SIZE:
            raise ValueError(
                f"The {name!r} parameter of ActivationStore must be keys of "
                f"{_holdings.KEY_SIZE} bytes. Got {key!r} instead."
            )
    return [settings + digest for digest in digests]
