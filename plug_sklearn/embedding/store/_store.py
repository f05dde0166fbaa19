"""A store of activations on disk, so that each distinct prompt is computed once."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from sqlite3 import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plug_sklearn._warnings import warn_user
from plug_sklearn.embedding.store._claims import (
    delete_claims,
    skip_free,
    take_claims,
)
from plug_sklearn.embedding.store._database import StoreError
from plug_sklearn.embedding.store._exchange import StoreExchange
from plug_sklearn.embedding.store._layouts import Layout
from plug_sklearn.embedding.store._records import Records, open_records
from plug_sklearn.embedding.store._requests import (
    check_keys,
    check_out,
    check_states,
    list_slots,
)
from plug_sklearn.embedding.store._vectors import decode, encode

#: Most bytes in one transaction. Other processes wait for it before they write.
_TRANSACTION_SIZE = 2**26
#: Seconds between two checks of claims.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.25


class ActivationStore(StoreExchange):
    """A store of activations on disk, addressed by prompt, model and settings.

    Each distinct prompt goes through the language model once, over all threads and
    processes that use the store.

    The store is a folder with a SQLite file and a file of vectors. Any number of
    threads and processes on one machine can read and write it at the same time, and can
    be killed at any moment. Each record has a checksum. Damaged records count as
    missing, and a warning is issued. The store contains no pickles. The folder must be
    on a local disk, because SQLite's write-ahead log (WAL) does not work on network
    file systems. A store can be pickled; the copy opens the same folder.

    Parameters
    ----------
    path : str or Path
        The folder. It is created when something is first written, or when a ``dtype``
        is given, and must be new or empty if it is not a store yet.
    readonly : bool, default=False
        Whether to open the store for reading only. The folder must then exist. You need
        no permission to write in it, as long as no other process writes to it.
    dtype : {None, "float32", "float16", "bfloat16"}, default=None
        Data type of the vectors on disk. None: the type that the store was made with,
        or float32 if it is new. The other two types take half the space. States are
        rounded when they are written, and are converted to float32 when they are
        read.

    Attributes
    ----------
    path : Path
        Absolute path of the folder.

    Raises
    ------
    ValueError
        If ``dtype`` is invalid, or differs from that of the store.
    StoreError
        If the folder cannot be used. The message says why, and what to do.

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
            Key that ``register`` returned.
        digests : sequence of bytes
            Digest of each prompt, of 16 bytes.
        layers : sequence of int
            Layers to read, along axis 1.
        parts : sequence of str
            Parts to read, along axis 2.
        out : ndarray of shape (n_rows, n_layers, n_parts * n_poolings, hidden_size), \
of ``dtype``
            Array that is filled with what the store holds. The rest of it is not
            changed. With ``poolings=None``, an array of shape (n_rows,) and dtype
            object: items that are None are replaced by arrays of shape
            (n_tokens, n_layers, n_parts, hidden_size), and items that are such arrays
            are filled.
        rows : sequence of int, default=None
            Row of ``out`` for each prompt; None: the first rows, in order.
        poolings : sequence of str or None, default=("last",)
            Poolings to read. Axis 2 holds each part under each pooling, part by part.
            None: the vectors of all tokens.
        dtype : {"float32", "float16"}, default="float32"
            Data type of ``out``. States that are too large become infinite.

        Returns
        -------
        ndarray of shape (n, n_layers, n_parts * n_poolings), bool
            Whether each activation is missing: never written, or damaged. A warning
            says how many records are damaged.
        """
        slots = list_slots(layers, parts, poolings)
        check_keys(settings, digests)
        rows = np.arange(len(digests)) if rows is None else np.asarray(rows, dtype=int)
        shape = (len(layers), len(slots) // len(layers))
        check_out(out, rows, len(digests), shape, poolings, np.dtype(dtype))
        with (
            self._read() as connection,
            open_records(connection, self.path, settings) as records,
            np.errstate(over="ignore"),
        ):
            if poolings is None:
                missing = records.read_tokens(
                    digests, slots, out, rows, np.dtype(dtype), shape
                )
            else:
                pooled = out.reshape(len(out), len(slots), out.shape[3])
                missing = records.read(digests, slots, pooled, rows)
        if records.n_damaged:
            warn_user(
                f"{records.n_damaged} damaged records were found in the activation "
                f"store {str(self.path)!r}. They are not used. Their activations count "
                "as missing and are computed again when needed."
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
        """Write activations of prompts, and end the claims of this process on them.

        Activations that the store already holds are kept.

        Parameters
        ----------
        settings, digests, layers, parts : bytes, sequences of bytes, int and str
            As in ``read_into``.
        states : ndarray of shape (n, n_layers, n_parts * n_poolings, hidden_size), \
float32
            The activations; with ``poolings=None``, a list of n arrays of shape
            (n_tokens, n_layers, n_parts, hidden_size). A few large writes are faster
            and take less space than many small ones, because each call makes one record
            for each prompt.
        poolings : sequence of str or None, default=("last",)
            As in ``read_into``.

        Returns
        -------
        ndarray or list of ndarray
            The activations as they will be read, rounded to the dtype of the store.

        Raises
        ------
        FloatingPointError
            If a state is too large for the dtype of the store.
        StoreError
            If the store cannot be written, for example because the disk is full. The
            results of earlier calls are kept.
        """
        slots = list_slots(layers, parts, poolings)
        check_keys(settings, digests)
        shape = (len(layers), len(slots) // len(layers))
        hidden_size = check_states(states, len(digests), shape, poolings)
        self._check_writable()
        locks, dtype = self._database.locks, self.dtype
        # The tokens of one slot are stored together, because they are read together.
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
                own = [digests[row] for row in some]
                records.add(own, layout, [vectors[row].data for row in some])
                written = [settings + digest for digest in own]
                delete_claims(connection, locks, written)
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
        """Claim prompts that are not held and that no one else is computing.

        Claimed prompts must be written or released. Claims end when their process ends.

        Parameters
        ----------
        settings, digests, layers, parts, poolings : bytes, sequences of bytes, int, str
            As in ``read_into``.
        at_most : int, default=None
            Largest number of prompts to claim; None: no limit.

        Returns
        -------
        ndarray of shape (n,), bool
            Whether each prompt was claimed. If digests are equal, only the first is
            claimed.
        """
        slots = list_slots(layers, parts, poolings)
        check_keys(settings, digests)
        self._check_writable()
        locks = self._database.locks
        first_rows = {digest: row for row, digest in reversed([*enumerate(digests)])}
        mine = np.zeros(len(digests), dtype=bool)
        with self._write_records(settings, "claim") as (connection, records):
            claimed = take_claims(
                connection,
                locks,
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
            Key that ``register`` returned.
        digests : sequence of bytes
            Digest of each prompt, of 16 bytes.
        """
        check_keys(settings, digests)
        self._check_writable()
        locks = self._database.locks
        try:
            with self._write() as connection:
                delete_claims(connection, locks, [settings + d for d in digests])
        except StoreError:
            # Deleting also fails on a full disk. All claims of this process end.
            locks.resign()
            raise

    def wait(self, settings: bytes, digests: Sequence[bytes]) -> None:
        """Wait until none of these prompts is claimed.

        Afterwards, the store holds the prompts, unless the process that claimed them
        has released them or has ended; they can then be claimed. This waits for all
        claims, including those of other threads and of the caller.

        Parameters
        ----------
        settings : bytes
            Key that ``register`` returned.
        digests : sequence of bytes
            Digest of each prompt, of 16 bytes.
        """
        check_keys(settings, digests)
        prompts = [settings + digest for digest in dict.fromkeys(digests)]
        pause, locks = _SHORTEST_PAUSE, self._database.locks
        while True:
            with self._read() as connection:
                skip_free(connection, locks, prompts)
            if not prompts:
                return
            time.sleep(pause)
            pause = min(1.5 * pause, _LONGEST_PAUSE)

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
