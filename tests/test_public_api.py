"""What ``import splitpriv`` gives, and what it leaves alone."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import inspect
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest
from torch import nn

import splitpriv as sp

SUBPACKAGES = sorted(info.name for info in pkgutil.iter_modules(sp.__path__) if info.ispkg)
PACKAGES = ["splitpriv", *(f"splitpriv.{name}" for name in SUBPACKAGES)]
EXPLICIT = {"testing"}  # loads pytest and hypothesis, so only where it is asked for by name
HEAVY = ("matplotlib", "flwr", "pytest", "hypothesis", "sklearn", "PIL", "triton", "scipy.stats")
# The names of DESIGN's public face, as far as the first issue builds them.
FIXED = [
    *("RandomVectorMask", "ReluSanitizer", "LocalPretrainedEncoder", "LaplaceLDP", "RandomResponseLDP", "PrivacyLayer"),
    *("CodebookLDP", "CodebookLDP.fit", "CodebookLDP.random", "RandomCodebookLDP", "L1LaplaceLDP", "Projection"),
    *("Projection.pca", "Projection.rotation", "mechanisms.KClosest"),
    *("split", "valid_cuts", "SplitModel", "SplitModel.from_model", "SplitModel.release", "fit"),
    *("Release", "Release.save", "Release.load", "mechanisms.Channel"),
    *("ReleaseCache", "LedgerFileError", "accounting.Ledger.epsilon_at", "accounting.Ledger.export"),
    *("accounting.epsilon_total", "accounting.Ledger", "accounting.Spend", "accounting.simulation"),
    *("LabelLDP", "SplitModel.local"),
    *("accounting.delta_total", "accounting.compose", "accounting.calibrate", "accounting.Spend.together"),
    *("accounting.epsilon_shuffled", "accounting.shuffled"),
    *("SplitPrivError", "BudgetExceeded", "PrivacyWarning"),
]


def public_names(package: ModuleType) -> list[str]:
    """Every name without an underscore in front, submodules left out: importing one defines its name."""
    return sorted(
        name for name, value in vars(package).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_holds_exactly_the_public_names(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__all__ == sorted(set(package.__all__))
    modules = [n for n in package.__all__ if isinstance(getattr(package, n), ModuleType)]
    assert sorted([*public_names(package), *modules]) == [n for n in package.__all__ if n != "__version__"]


def test_the_package_exports_its_subpackages() -> None:
    exported = [name for name in sp.__all__ if isinstance(getattr(sp, name), ModuleType)]
    assert exported == [name for name in SUBPACKAGES if name not in EXPLICIT]


@pytest.mark.parametrize("name", FIXED)
def test_names_that_others_build_on_exist(name: str) -> None:
    value = sp
    for part in name.split("."):
        value = getattr(value, part)
    assert callable(value)


def test_every_layer_and_every_error_is_exported() -> None:
    # Found through the classes themselves, so that a new one cannot be forgotten.
    for module in pkgutil.walk_packages(sp.__path__, "splitpriv."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if not inspect.isclass(value) or name.startswith("_") or not value.__module__.startswith("splitpriv"):
                continue
            if issubclass(value, (sp.SplitPrivError, Warning)):
                assert name in sp.__all__
            if issubclass(value, nn.Module) and isinstance(value, sp.PrivacyLayer) and "Args:" in (value.__doc__ or ""):
                assert name in sp.__all__


def test_importing_it_loads_nothing_heavy() -> None:
    names = "{m.partition('.')[0] for m in sys.modules} | set(sys.modules)"
    code = f"import sys, splitpriv; print(sorted(({names}) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    late = "import sys, splitpriv; print({'torch._dynamo', 'splitpriv.layers.device_kernel'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", late], capture_output=True, text=True, check=True).stdout == "set()\n"
    planted = code.replace("splitpriv;", "splitpriv, PIL;")
    assert "PIL" in subprocess.run([sys.executable, "-c", planted], capture_output=True, text=True, check=True).stdout


def test_the_types_are_shipped() -> None:
    assert importlib.resources.files("splitpriv").joinpath("py.typed").is_file()


def test_the_version_is_that_of_the_installed_package() -> None:
    assert sp.__version__ == importlib.metadata.version("splitpriv")
