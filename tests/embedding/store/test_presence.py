from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from _stored import started

from plug_sklearn.embedding.store._presence import Presence


def attend(pipe: Connection, path: Path) -> None:
    """Be present, and answer whether others are alive or could be excluded."""
    presence = Presence(path, readonly=False)
    pipe.send(presence.name_claimant())
    while True:
        claimant = pipe.recv()
        if claimant is None:
            pipe.send(presence.exclude_others())
            presence.admit_others()
        else:
            pipe.send(presence.is_alive(claimant))


def test_process_is_alive_until_it_ends(tmp_path: Path) -> None:
    presence = Presence(tmp_path / "lock", readonly=False)
    with started(attend, tmp_path / "lock") as (process, pipe):
        other = pipe.recv()
        assert presence.is_alive(other)
        pipe.send(presence.name_claimant())
        assert pipe.recv()
        process.kill()
        process.join()
        assert not presence.is_alive(other)
    assert presence.is_alive(presence.name_claimant())
    presence.close()


def test_who_resigns_or_closes_is_not_alive(tmp_path: Path) -> None:
    presence = Presence(tmp_path / "lock", readonly=False)
    with started(attend, tmp_path / "lock") as (_, pipe):
        pipe.recv()
        former = presence.name_claimant()
        presence.resign()
        pipe.send(former)
        assert not pipe.recv()
        latter = presence.name_claimant()
        assert latter != former
        pipe.send(latter)
        assert pipe.recv()
        presence.close()
        pipe.send(latter)
        assert not pipe.recv()


def test_others_are_excluded_when_there_are_none(tmp_path: Path) -> None:
    presence = Presence(tmp_path / "lock", readonly=False)
    with started(attend, tmp_path / "lock") as (_, pipe):
        pipe.recv()
        assert not presence.exclude_others()
        pipe.send(None)
        assert not pipe.recv()
        presence.close()
        pipe.send(None)
        assert pipe.recv()


@pytest.mark.parametrize("claimant", [0, 1, 2, 3, 2**62, 2**63])
def test_number_of_no_one_is_not_alive(tmp_path: Path, claimant: int) -> None:
    presence = Presence(tmp_path / "lock", readonly=False)
    assert not presence.is_alive(claimant)
    presence.close()


def test_reader_needs_no_file(tmp_path: Path) -> None:
    presence = Presence(tmp_path / "lock", readonly=True)
    assert not presence.is_alive(5)
    with pytest.raises(OSError, match="may only be read"):
        presence.name_claimant()
    presence.close()
    assert not (tmp_path / "lock").exists()
