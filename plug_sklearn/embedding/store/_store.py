"""Activations on disk, by content: each distinct prompt is computed once."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from sqlite3 import Connection, DatabaseError
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding.store._claims import (
    delete_claims,
    skip_free,
    take_claims,
)
from plug_sklearn.embedding.store._database import (
    FILE_NAME,
    Database,
    StoreError,
    begin,
    close_database,
    open_database,
)
from plug_sklearn.embedding.store._records import (
    Layout,
    Records,
    Slot,
    move_records,
    open_records,
)
from plug_sklearn.embedding.store._settings import (
    KEY_SIZE,
    StoredModel,
    add_settings,
    are_described,
    delete_model,
    describe_settings,
    digest_settings,
    list_models,
)
from plug_sklearn.embedding.store._vectors import DTYPES, decode, encode

_PARTS = ("rs", "attn", "mlp")
_POOLINGS = ("last", "first", "mean", "max")
_MOST_LAYERS = 2**16
#: Bytes in one transaction, which other processes that write wait for.
_TRANSACTION_SIZE = 2**26
#: Between two looks at claims, in seconds.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.25


class ActivationStore:
    """Activations on disk, found by the prompt, the model and its settings.

    Cross-validation embeds the same texts again for each fold and each candidate. With
    a store each distinct prompt goes through the language model once, over all threads
    and processes that use it.

    The store is a folder with a SQLite file. Any number of threads and processes of
    one machine may read and write it at the same time, and be killed at any moment.
    Each record has a checksum; a damaged one counts as not held, and a warning tells.
    Nothing in it is a pickle. The folder must be on a local disk: SQLite's
    write-ahead log (WAL) does not work on a network file system.

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
    >>> settings = store.register("a-model", max_length=128)
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
    [('a-model', {'max_length': 128}, 2)]
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
            found = self.dtype
            if dtype not in (None, found):
                raise ValueError(
                    "The 'dtype' parameter of ActivationStore must be None or the "
                    f"store's own, {found!r}. Got {dtype!r} instead."
                )
        except BaseException:
            self.close()
            raise

    @property
    def dtype(self) -> str:
        """What the store keeps: "float32", "float16" or "bfloat16"."""
        with self._read() as connection:
            return self._read_dtype(connection)

    @property
    def n_bytes(self) -> int:
        """Bytes that the store takes on disk, with what waits to be used again."""
        with self._read():
            found = [
                file.stat()
                for name in (f"{FILE_NAME}*", "vectors-*.bin")
                for file in self.path.glob(name)
            ]
        # Where the file system tells it: the file may have holes.
        return sum(512 * getattr(f, "st_blocks", 0) or f.st_size for f in found)

    def register(self, model: str, **settings: Any) -> bytes:  # noqa: ANN401 - any JSON
        """Give the key of a model and its settings.

        Parameters
        ----------
        model : str
            The model's name, with its revision where it has one.
        **settings : object
            Everything else that activations depend on, as JSON has it, except for
            layer, part and pooling.

        Returns
        -------
        bytes
            16 bytes; equal for equal models and settings only.

        Raises
        ------
        TypeError
            If JSON cannot hold a setting.
        """
        description = describe_settings(model, settings)
        key = digest_settings(description.encode())
        with self._read() as connection:
            is_new = not self.readonly and not are_described(connection, key)
        if is_new:
            with self._write() as connection:
                add_settings(connection, key, description)
        return key

    def read_into(
        self,
        settings: bytes,
        digests: Sequence[bytes],
        layers: Sequence[int],
        parts: Sequence[str],
        out: NDArray[Any],
        rows: Sequence[int] | NDArray[np.int64] | None = None,
        *,
        poolings: Sequence[str] | None = ("last",),
        dtype: str | np.dtype[np.floating] = "float32",
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
        out : ndarray of shape (n_rows, n_layers, n_parts * n_poolings, hidden_size), \
of ``dtype``
            Takes what is held; the rest of it stays as it is. Without poolings, an
            array of shape (n_rows,) and dtype object, which takes arrays of shape
            (n_tokens, n_layers, n_parts, hidden_size) where it holds None, and fills
            those that it holds.
        rows : sequence of int, default=None
            The row of each prompt; None is one after another.
        poolings : sequence of str or None, default=("last",)
            Poolings to read. Axis 2 holds each part under each pooling, part by part.
            None is every token.
        dtype : {"float32", "float16"}, default="float32"
            What the activations become. A state that is too large becomes infinite.

        Returns
        -------
        ndarray of shape (n, n_layers, n_parts * n_poolings), bool
            What is missing: never written, or damaged since. A warning counts damaged
            records.
        """
        slots = _list_slots(layers, parts, poolings)
        _check_keys(settings, digests)
        rows = range(len(digests)) if rows is None else [int(row) for row in rows]
        shape = (len(layers), len(slots) // len(layers))
        _check_out(out, rows, len(digests), shape, poolings, np.dtype(dtype))
        with (
            self._read() as connection,
            open_records(connection, self.path, settings) as records,
            np.errstate(over="ignore"),
        ):
            if poolings is None:
                flat = _view_slots(out, len(slots))
                missing = records.read_tokens(
                    digests, slots, flat, rows, np.dtype(dtype)
                )
                for row in rows:
                    if flat[row] is not None:
                        out[row] = flat[row].reshape(len(flat[row]), *shape, -1)
            else:
                pooled = out.reshape(len(out), len(slots), out.shape[3])
                missing = records.read(digests, slots, pooled, rows)
        if records.n_damaged:
            warn_user(
                f"{records.n_damaged} damaged records were found in the activation "
                f"store {str(self.path)!r}. They are not used: what they held counts "
                "as missing, and is computed again when it is needed."
            )
        return missing.reshape(-1, *shape)

    def write(
        self,
        settings: bytes,
        digests: Sequence[bytes],
        layers: Sequence[int],
        parts: Sequence[str],
        states: NDArray[np.float32] | list[NDArray[np.float32]],
        *,
        poolings: Sequence[str] | None = ("last",),
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Add activations, keep what is there, and end this process's claims on them.

        Parameters
        ----------
        settings, digests, layers, parts, poolings : see below
            As for ``read_into``.
        states : ndarray of shape (n, n_layers, n_parts * n_poolings, hidden_size), \
float32
            The activations; without poolings, a list of n arrays of shape
            (n_tokens, n_layers, n_parts, hidden_size). All of one prompt's share a
            record, and a call is one transaction for each 64 MiB: few large writes are
            fastest and smallest.

        Returns
        -------
        ndarray or list of ndarray
            The activations as they will be read: rounded to the store's dtype.

        Raises
        ------
        FloatingPointError
            If a state is too large for the store's dtype.
        StoreError
            If the disk is full, for one. What earlier calls wrote is kept.
        """
        slots = _list_slots(layers, parts, poolings)
        _check_keys(settings, digests)
        shape = (len(layers), len(slots) // len(layers))
        hidden_size = _check_states(states, len(digests), shape, poolings)
        self._check_writable()
        dtype = self.dtype
        # Tokens of one slot stand together, as what is read of them does.
        by_slot = (
            states
            if poolings is not None
            else [np.moveaxis(item, 0, 2) for item in states]
        )
        encoded = [encode(item, dtype) for item in by_slot]
        layout = Layout(dtype, hidden_size, slots)
        vectors = [item.reshape(-1).view(np.uint8) for item in encoded]
        largest = max((item.nbytes for item in states), default=1)
        n_rows = max(1, _TRANSACTION_SIZE // largest)
        for start in range(0, len(digests), n_rows):
            some = range(len(digests))[start : start + n_rows]
            with self._write_records(settings, "write") as (connection, records):
                for row in some:
                    records.add(digests[row], layout, vectors[row].data)
                written = [settings + digests[row] for row in some]
                delete_claims(connection, self._database.locks, written)
        if dtype == "float32":
            return states
        decoded = [decode(item, dtype) for item in encoded]
        if poolings is not None:
            return np.stack(decoded) if decoded else np.asarray(states)
        return [np.moveaxis(item, 2, 0) for item in decoded]

    def claim(
        self,
        settings: bytes,
        digests: Sequence[bytes],
        layers: Sequence[int],
        parts: Sequence[str],
        *,
        poolings: Sequence[str] | None = ("last",),
        at_most: int | None = None,
    ) -> NDArray[np.bool_]:
        """Claim prompts that are neither held nor being computed.

        What is claimed is to be written, or released. Claims of a process end with it.

        Parameters
        ----------
        settings, digests, layers, parts, poolings : see below
            As for ``read_into``.
        at_most : int, default=None
            How many to claim; None is all.

        Returns
        -------
        ndarray of shape (n,), bool
            What this caller is to compute. Of equal digests only the first is.
        """
        slots = _list_slots(layers, parts, poolings)
        _check_keys(settings, digests)
        self._check_writable()
        first_rows = {digest: row for row, digest in reversed([*enumerate(digests)])}
        mine = np.zeros(len(digests), dtype=bool)
        with self._write_records(settings, "claim") as (connection, records):
            claimed = take_claims(
                connection,
                self._database.locks,
                {settings + digest: digest for digest in digests},
                lambda digest: records.hold(digest, slots),
                at_most,
            )
        mine[[first_rows[digest] for digest in claimed]] = True
        return mine

    def release(self, settings: bytes, digests: Sequence[bytes]) -> None:
        """Give up claims of this process, so that others may compute the prompts.

        Parameters
        ----------
        settings : bytes
            What ``register`` gave.
        digests : sequence of bytes
            16 bytes for each prompt.
        """
        _check_keys(settings, digests)
        self._check_writable()
        locks = self._database.locks
        try:
            with self._write() as connection:
                delete_claims(connection, locks, [settings + d for d in digests])
        except StoreError:
            # A full disk takes no deletion either. All claims of this process end.
            locks.resign()
            raise

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
        _check_keys(settings, digests)
        prompts = [settings + digest for digest in dict.fromkeys(digests)]
        pause = _SHORTEST_PAUSE
        while True:
            with self._read() as connection:
                skip_free(connection, self._database.locks, prompts)
            if not prompts:
                return
            time.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_PAUSE)

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
        with self._read() as connection:
            return list_models(connection)

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
        self._check_writable()
        with self._write() as connection:
            before = list_models(connection)
            delete_model(connection, model)
        return sum(stored.n_prompts for stored in before if stored.model == model)

    def compact(self) -> None:
        """Write the store anew, as small as it can be.

        Leaves out what was deleted or is damaged. Other processes may go on using the
        store; those that write wait. Takes up to twice as much room as the store until
        it is done, in its folder and in the system's folder for temporary files.

        Raises
        ------
        StoreError
            If there is no room; the store then holds what it held.
        """
        self._check_writable()
        with self._connect() as connection:
            with begin(connection, write=True):
                kept = move_records(connection, self.path)
            connection.execute("VACUUM")
            # Waits for those who still read the former file.
            (is_busy, *_) = connection.execute(
                "PRAGMA wal_checkpoint(TRUNCATE)"
            ).fetchone()
        for former in self.path.glob("vectors-*.bin"):
            if former != kept and not is_busy:
                former.unlink()

    def close(self) -> None:
        """Close this object. When a process closes its last one, its claims end."""
        if not self._is_closed:
            self._is_closed = True
            close_database(self.path, self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"ActivationStore({str(self.path)!r}, readonly={self.readonly})"

    @property
    def _database(self) -> Database:
        if self._is_closed:
            raise StoreError(f"The activation store {str(self.path)!r} was closed.")
        return open_database(self.path, self)

    def _connect(self) -> AbstractContextManager[Connection]:
        dtype = self._asked_dtype or "float32"
        return self._database.connect(readonly=self.readonly, dtype=dtype)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._connect() as connection, begin(connection):
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._connect() as connection, begin(connection, write=True):
            yield connection

    def _check_writable(self) -> None:
        if self.readonly:
            raise StoreError(
                f"The activation store {str(self.path)!r} was opened with "
                "readonly=True. Open it without to change it."
            )

    def _read_dtype(self, connection: Connection) -> str:
        row = connection.execute("SELECT dtype FROM store").fetchone()
        dtype = row[0].decode(errors="replace") if row else "nothing"
        if dtype not in DTYPES:
            raise DatabaseError(f"it keeps {dtype}")
        return str(dtype)

    @contextmanager
    def _write_records(
        self, settings: bytes, method: str
    ) -> Iterator[tuple[Connection, Records]]:
        with (
            self._write() as connection,
            open_records(connection, self.path, settings, write=True) as records,
        ):
            if not records.are_known:
                raise ValueError(
                    f"The 'settings' parameter of ActivationStore.{method} must be a "
                    f"key that register gave. Got {settings!r} instead."
                )
            yield connection, records


def _list_slots(
    layers: Sequence[int], parts: Sequence[str], poolings: Sequence[str] | None
) -> tuple[Slot, ...]:
    numbers = [int(layer) for layer in layers]
    known = all(0 <= layer < _MOST_LAYERS for layer in numbers)
    if not known or len(set(numbers)) < max(1, len(numbers)):
        raise ValueError(
            "The 'layers' parameter of ActivationStore must be distinct numbers in "
            f"[0, {_MOST_LAYERS}). Got {list(layers)} instead."
        )
    for name, given, allowed in (
        ("parts", parts, _PARTS),
        ("poolings", _POOLINGS if poolings is None else poolings, _POOLINGS),
    ):
        known = all(each in allowed for each in given)
        if not known or len(set(given)) < max(1, len(given)):
            raise ValueError(
                f"The {name!r} parameter of ActivationStore must be any of {allowed}, "
                f"each named once. Got {list(given)} instead."
            )
    named = [None] if poolings is None else [str(pooling) for pooling in poolings]
    return tuple(
        (layer, str(part), pooling)
        for layer in numbers
        for part in parts
        for pooling in named
    )


def _check_out(
    out: NDArray[Any],
    rows: Sequence[int],
    n_prompts: int,
    shape: tuple[int, int],
    poolings: Sequence[str] | None,
    dtype: np.dtype[np.floating],
) -> None:
    if poolings is None:
        fits = out.dtype == object and out.ndim == 1
        expected = f"an array of dtype object and shape ({n_prompts} or more,)"
    else:
        fits = out.dtype == dtype and out.ndim == 4 and out.flags.c_contiguous
        fits = fits and out.shape[1:3] == shape
        expected = (
            f"a contiguous {dtype} array of shape ({n_prompts} rows or more, "
            f"{shape[0]}, {shape[1]}, hidden size)"
        )
    if not fits or len(rows) != n_prompts or max(rows, default=-1) >= len(out):
        raise ValueError(
            f"The 'out' parameter of ActivationStore.read_into must be {expected}. "
            f"Got {out.dtype} {out.shape} instead."
        )


def _check_states(
    states: NDArray[np.float32] | list[NDArray[np.float32]],
    n_prompts: int,
    shape: tuple[int, int],
    poolings: Sequence[str] | None,
) -> int:
    """Check activations to write, and give their hidden size."""
    n_axes = 3 if poolings is not None else 4
    shapes = {item.shape[n_axes - 3 :] for item in states}
    fits = len(states) == n_prompts and all(
        item.ndim == n_axes and item.size for item in states
    )
    if not fits or len(shapes) > 1 or any(found[:2] != shape for found in shapes):
        if poolings is not None:
            expected = f"have the shape {(n_prompts, *shape)} and the hidden size"
        else:
            expected = (
                f"be a list of {n_prompts} arrays whose shapes are a number of tokens, "
                f"{shape[0]}, {shape[1]} and the hidden size"
            )
        found = (
            states.shape
            if isinstance(states, np.ndarray)
            else [item.shape for item in states[:3]]
        )
        raise ValueError(
            f"The 'states' parameter of ActivationStore.write must {expected}. "
            f"Got {found} instead."
        )
    return int(next(iter(shapes), (0, 0, 1))[-1])


def _view_slots(out: NDArray[np.object_], n_slots: int) -> NDArray[np.object_]:
    """View arrays of tokens with one axis for layers and parts."""
    flat = np.empty(len(out), dtype=object)
    for row, item in enumerate(out):
        if item is not None:
            flat[row] = item.reshape(len(item), n_slots, -1)
    return flat


def _check_keys(settings: bytes, digests: Sequence[bytes]) -> None:
    for name, key in [("settings", settings), *(("digests", d) for d in digests)]:
        if len(key) != KEY_SIZE:
            raise ValueError(
                f"The {name!r} parameter of ActivationStore must be keys of "
                f"{KEY_SIZE} bytes. Got {key!r} instead."
            )
