"""A machine where nothing is installed: a clone, an empty HOME, a virtual environment.

Everything here runs on Python's standard library alone.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Variables that would let a fresh environment find what this one has.
HIDDEN = ("CONDA", "HF_", "PLUG_", "PYTEST", "PYTHON", "TRANSFORMERS", "VIRTUAL", "XDG")


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a temporary folder that others may read, as a user's own folders are."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def clone(folder: Path) -> Path:
    """Clone the commit that is checked out, without what is not committed."""
    folder.mkdir(parents=True)
    run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder)], folder)
    return folder


def make_environment(home: Path) -> dict[str, str]:
    """Make the variables of a new user: an empty HOME, and this machine's pip."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(HIDDEN)}
    path = kept.get("PATH", os.defpath).split(os.pathsep)
    outside = [entry for entry in path if not Path(entry, "../pyvenv.cfg").exists()]
    return {**kept, "PATH": os.pathsep.join(outside), "HOME": str(home)}


def run(
    command: Sequence[str], cwd: Path, environment: dict[str, str] | None = None
) -> None:
    """Run a command; end here, with its output, if it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        sys.stderr.write(f"{' '.join(command)}\n{done.stdout}")
        raise SystemExit(done.returncode)


def say(message: str) -> None:
    """Print a line at once, since what follows may take minutes."""
    sys.stdout.write(f"{message}\n")
    sys.stdout.flush()
