"""The wheel installs into an empty environment and runs the README's example there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_wheel_in_an_empty_environment_runs_the_readme_example(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("splitpriv-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "splitpriv/py.typed" in names
    assert all(name.startswith("splitpriv") for name in names)  # no examples, and no tests but those of users
    assert [name for name in names if "/test_" in name] == ["splitpriv/testing/test_shipped.py"]
    assert any(name.endswith("licenses/LICENSE") for name in names)
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / ("Scripts" if os.name == "nt" else "bin") / "python"
    quiet = ("--quiet", "--disable-pip-version-check")
    run(python, "-m", "pip", "install", *quiet, "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    installed = run(python, "-m", "pip", "list", "--format=freeze", *quiet, cwd=tmp_path)
    assert "pytest" not in installed
    assert "scikit" not in installed
    (example, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    assert "per record" in run(python, "-W", "error", "-I", "example.py", cwd=tmp_path)
    # And the tests that users run, from the wheel, once its extra is there too.
    run(python, "-m", "pip", "install", *quiet, "-c", ROOT / "constraints.txt", f"{wheel}[testing]", cwd=tmp_path)
    tested = run(python, "-W", "error", "-m", "pytest", "--pyargs", "splitpriv.testing", cwd=tmp_path)
    assert re.search(r"\d{3} passed", tested)
    assert "failed" not in tested
