"""Run the README's commands, to the letter, on a machine where nothing is installed.

``python check_readme.py quickstart`` and ``python check_readme.py tests`` each take
their line from the README, and run it in a clone and a virtual environment of its own.
"""

import re
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from fresh import ROOT, clone, make_environment, open_folder, say

#: What tells a command of the README from the others.
MARKS = {"quickstart": "examples/quickstart.py", "tests": "-m pytest"}
CLASSIFIERS = ("LogisticRegression", "PlugStackClassifier", "PlugMLPClassifier")
PICTURES = ("layer_curve.png", "training_curves.png", "controls.png")


def main(name: str) -> None:
    """Run one command, and check what it leaves."""
    command = read_command(name)
    say(f"$ {command}")
    with open_folder() as folder:
        place = clone(folder / "clone")
        code, lines, seconds = run_line(command, place, folder / "home")
        if code:
            raise SystemExit(code)
        if name == "quickstart":
            check_quickstart(lines, seconds, place / "quickstart_output")


def read_command(name: str) -> str:
    """Read a command from the README: one line of a block of shell."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    (command,) = (line for line in lines if MARKS[name] in line)
    return command


def run_line(
    command: str, place: Path, home: Path
) -> tuple[int, list[tuple[float, str]], float]:
    """Run a line of shell and show its output.

    Returns its exit code; its lines of output, each with the seconds since the last
    command of the line began; and how many seconds that took.
    """
    # The shell writes each command before it runs it, which tells when the last began.
    # Unbuffered, so that a line counts when it is printed.
    traced = {**make_environment(home), "PS4": "+ ", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        ["bash", "-euxo", "pipefail", "-c", command],
        cwd=place,
        env=traced,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    began, lines = perf_counter(), []
    assert process.stdout is not None
    for line in process.stdout:
        say(line.rstrip("\n"))
        if line.startswith("+ "):
            began, lines = perf_counter(), []
        else:
            lines.append((perf_counter() - began, line.rstrip("\n")))
    return process.wait(), lines, perf_counter() - began


def check_quickstart(lines: list[tuple[float, str]], seconds: float, out: Path) -> None:
    """Check the quickstart's pictures, its table and its saved pipeline."""
    for picture in PICTURES:
        content = (out / picture).read_bytes()
        assert content.startswith(b"\x89PNG"), f"{picture} is no PNG"
        assert len(content) > 10_000, f"{picture} is empty"
    text = "\n".join(line for _, line in lines)
    for classifier in CLASSIFIERS:
        row = rf"^{classifier} +(0\.\d+) +(0\.\d+) +(0\.\d+)$"
        found = re.search(row, text, re.M)
        assert found, f"the table has no row for {classifier}"
        assert float(found[2]) > 0.8, f"ROC-AUC of {classifier}: {found[2]}"
    found = re.search(r"^bag_of_words +(0\.\d+) ", text, re.M)
    assert found, "no row shows the bag of words"
    assert abs(float(found[1]) - 0.5) < 0.05, f"a bag of words has {found[1]}"
    found = re.search(r"^Selectivity, .*: (0\.\d+)\.$", text, re.M)
    assert found, "no line tells the selectivity"
    assert float(found[1]) > 0.3, f"selectivity: {found[1]}"
    found = re.search(r"difference .* in a fresh process: (\S+?)\.?$", text, re.M)
    assert found, "no fresh process answered"
    assert float(found[1]) < 1e-5, f"a fresh process differed by {found[1]}"
    bars = [line for _, line in lines if re.search(r"\d+%\|", line)]
    assert not bars, f"progress bars in a file: {bars[:3]}"
    (curve,) = (at for at, line in lines if line.startswith("Layer "))
    say(f"Quickstart: {seconds:.0f} s, its layer curve after {curve:.0f} s.")


if __name__ == "__main__":
    main(sys.argv[1])
