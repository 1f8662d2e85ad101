"""What holds for the repository as a whole: layering, packaging, documents."""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

import deltalm_ds
from deltalm_ds.ops.cuda.build import find_nvcc

ROOT = Path(__file__).parent.parent
MARKDOWN = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md")])
OPTIONAL = {"apex", "liger_kernel", "atheris"}
"""Imported where it is installed and asked for, never required; atheris by tests/fuzz, by hand."""
IMPORT_NAMES = {"pyyaml": "yaml", "megatron-core": "megatron", "rouge-score": "rouge_score"}
"""Of packages that are imported by another name than they are installed by."""


def modules() -> list[str]:
    found = pkgutil.walk_packages(deltalm_ds.__path__, "deltalm_ds.")
    return [module.name for module in found if not module.name.endswith(".__main__")]


def in_packages(*packages: str) -> list[str]:
    return [name for name in modules() if name.startswith(tuple(f"deltalm_ds.{name}" for name in packages))]


def assert_importable(names: Iterable[str], without: Iterable[str]) -> None:
    """Import the modules in a fresh process in which the packages `without` cannot be found."""
    script = (
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({sorted(without)!r}))\n"
        f"for name in {sorted(names)!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def requirements() -> dict[str, list[str]]:
    """The lists of setup.py: REQUIREMENTS, TEST and DEV, as names without versions."""
    lists: dict[str, list[str]] = {}
    for statement in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.List):
            texts = [item.value for item in statement.value.elts if isinstance(item, ast.Constant)]
            lists[ast.unparse(statement.targets[0])] = [re.split("[<>=]", str(text))[0] for text in texts]
    return lists


def third_party_imports(folder: Path) -> dict[str, Path]:
    """Top-level packages that the Python files below `folder` import, each with one of the files."""
    found: dict[str, Path] = {}
    paths = [*folder.rglob("*"), *(ROOT / "benchmarks").glob("*.py")]
    own = {"deltalm_ds", *(path.stem for path in paths if path.is_dir() or path.suffix == ".py")}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for name in (name.split(".")[0] for name in names):
                if name not in sys.stdlib_module_names and name not in own:
                    found[name] = path
    return found


def test_model_and_operations_need_torch_and_numpy_only() -> None:
    required = {IMPORT_NAMES.get(name, name) for name in requirements()["REQUIREMENTS"]}
    others = {*required, "transformers"} - {"torch", "numpy"}
    assert_importable(["deltalm_ds", *in_packages("model", "ops")], without=others)


def test_text_and_data_need_no_torch() -> None:
    packages = ("text", "data", "demo", "downstream", "prepare", "corpus", "scoring", "score")
    names = set(in_packages(*packages)) - {"deltalm_ds.data.loader"}
    assert len(names) > 15
    assert_importable(names, without=["torch", "deepspeed", "transformers"])


def test_only_training_imports_deepspeed() -> None:
    names = set(modules()) - set(in_packages("training"))
    assert "deltalm_ds.pretrain" in names
    assert_importable(names, without=["deepspeed"])


def test_no_module_shadows_another_package() -> None:
    """`deepspeed deltalm_ds/pretrain.py` puts deltalm_ds/ at the head of the import path."""
    tops = {path.stem for path in (ROOT / "deltalm_ds").iterdir() if path.name[0] not in "_."}
    assert not tops & set(sys.stdlib_module_names)
    others = {name: importlib.util.find_spec(name) for name in tops}
    shadowed = [
        name for name, spec in others.items() if spec and not (spec.origin or str(ROOT)).startswith(str(ROOT))
    ]
    assert not shadowed


@pytest.mark.parametrize(
    ("folder", "lists"),
    [
        ("deltalm_ds", ("REQUIREMENTS", "SERVE")),
        ("tests", ("REQUIREMENTS", "SERVE", "TEST")),
        ("benchmarks", ("REQUIREMENTS", "SERVE", "TEST")),
        ("docs", ("REQUIREMENTS",)),
    ],
)
def test_imports_are_declared(folder: str, lists: tuple[str, ...]) -> None:
    declared = {IMPORT_NAMES.get(name, name) for key in lists for name in requirements()[key]}
    undeclared = third_party_imports(ROOT / folder).keys() - declared - OPTIONAL
    assert not undeclared, {name: third_party_imports(ROOT / folder)[name] for name in undeclared}


def test_requirements_are_explained() -> None:
    text = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    names = {name for names in requirements().values() for name in names}
    assert len(names) > 15
    assert [name for name in sorted(names) if name not in text] == []


def test_torch_is_pinned_in_one_place() -> None:
    files = [*ROOT.glob("*"), *MARKDOWN, *(ROOT / ".ci").glob("*")]
    pinned = {path.name for path in files if path.is_file() and "torch==" in path.read_text(encoding="utf-8")}
    assert pinned == {"requirements-torch.txt"}


def test_wheel_holds_code_sample_and_the_sources_of_kernels(tmp_path: Path) -> None:
    """What `pip install .` installs: modules, sample, version, dependencies, and kernels where nvcc is."""
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("deltalm_ds", "kernels"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        packed = {name for name in wheel.namelist() if name.startswith("deltalm_ds/")}
        (metadata_name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
        metadata = wheel.read(metadata_name).decode()
    compiled = {"deltalm_ds/ops/cuda/libdeltalm_kernels.so"} if find_nvcc() else set()
    assert packed - compiled == {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "deltalm_ds").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert compiled <= packed
    assert path.name.startswith(f"deltalm_ds-{deltalm_ds.__version__}-py3-none-linux_")
    assert f"\nVersion: {deltalm_ds.__version__}\n" in metadata
    needed = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, flags=re.M)
    assert sorted(needed) == sorted(requirements()["REQUIREMENTS"])


def test_changelog_knows_the_version() -> None:
    heads = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.M)
    assert heads[0] in ("Unreleased", deltalm_ds.__version__)


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith(("http:", "https:"))]
    assert [target for target in local if not (path.parent / target).exists()] == []


def test_picture_is_what_its_script_draws(tmp_path: Path) -> None:
    drawn = tmp_path / "data_flow.svg"
    subprocess.run([sys.executable, str(ROOT / "docs/draw_data_flow.py"), str(drawn)], check=True)
    assert drawn.read_bytes() == (ROOT / "docs/data_flow.svg").read_bytes()
