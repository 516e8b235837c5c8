"""Imports point down: model <- storage <- stages <- pipeline <- the face <- testing <- console.

And within that, finer: a stage knows no other stage and no adapter, one file knows the whole chain, one file knows the
default adapter, and one knows all of them by URL. What the package imports is read from its source. Modules are named
below the root (`stages.executor`), and the face, `clepsydra/__init__.py`, is called `face`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import clepsydra

PACKAGE = Path(clepsydra.__file__).parent
CHECKOUT = Path(__file__).parents[2]

MAY_IMPORT = {
    "model": {"model"},
    "storage": {"storage", "model"},
    "stages": {"stages", "storage", "model"},
    "pipeline": {"pipeline", "stages", "storage", "model"},
    "face": {"pipeline", "stages", "storage", "model"},
    "testing": {"testing", "face", "storage", "model"},
    "console": {"console", "face", "testing"},
    "__main__": {"console"},
}
FOLDERS = [layer for layer in MAY_IMPORT if layer not in ("face", "__main__")]
USERS = [folder for folder in ("tests", "docs", "examples", "benchmarks", "tools") if (CHECKOUT / folder).is_dir()]

STAGES = {f"stages.{name}" for name in ("job_broadcaster", "execution_broadcaster", "node_selector", "executor")}
ADAPTERS = {f"storage.{name}" for name in ("memory", "sqlite", "postgres")}
THE_CHAIN = "pipeline.wiring"
THE_DEFAULT_ADAPTER = "pipeline.scheduler"
ADAPTERS_BY_URL = "storage.urls"
KNOWS_CRONITER = "model.cron"
STORAGE_FOR_TESTS = {"storage.protocol", "storage.conformance"}
EXECUTABLE_WHEN_READ = {"pickle", "_pickle", "cloudpickle", "dill", "jsonpickle", "marshal", "shelve"}
OF_TESTS_ONLY = {"pytest", "hypothesis", "unittest"}


class Import(NamedTuple):
    """One module knows another; both are named below the root package."""

    importer: str
    target: str


# ---- The rule


def objection(importer: str, target: str) -> str | None:
    """Why this module may not import that one, if so."""
    layer, below = layer_of(importer), layer_of(target)
    if below not in MAY_IMPORT[layer]:
        return f"{layer} does not know {below}"
    if importer in STAGES and target in STAGES and importer != target:
        return "a stage does not know another stage: they meet in messages"
    if layer == "stages" and target == "storage":
        return "a stage names the module it needs, storage.protocol or storage.lane, not the folder"
    if layer == "testing" and below == "storage" and target not in STORAGE_FOR_TESTS:
        return "testing knows of the storage only the protocol and the conformance checks"
    adapter = adapter_of(target)
    if adapter and adapter != adapter_of(importer) and importer not in (THE_DEFAULT_ADAPTER, ADAPTERS_BY_URL, "face"):
        return "adapters are known to pipeline.scheduler, to storage.urls and to the face only"
    return None


def layer_of(module: str) -> str:
    return module.partition(".")[0]


def adapter_of(module: str) -> str | None:
    """The adapter that a module belongs to: storage.sqlite, but also storage.sqlite_schema and storage.sqlite.rows."""
    return next((name for name in ADAPTERS if module == name or module.startswith((f"{name}.", f"{name}_"))), None)


@pytest.mark.parametrize(
    ("importer", "target"),
    [
        ("model.job", "storage.protocol"),
        ("storage.lane", "stages.messages"),
        ("stages.executor", "pipeline.settings"),
        ("stages.executor", "stages.node_selector"),
        ("stages.executor", "storage.sqlite"),
        ("stages.executor", "storage"),
        ("stages.timeline", "storage.memory"),
        ("storage.lane", "storage.memory"),
        ("storage.sqlite", "storage.memory"),
        ("storage.sqlite_schema", "storage.memory_rows"),
        ("pipeline.wiring", "storage.memory"),
        ("pipeline.scheduler", "face"),
        ("pipeline.scheduler", "console.main"),
        ("face", "console.main"),
        ("face", "testing.clock"),
        ("console.main", "pipeline.scheduler"),
        ("console.main", "model.errors"),
        ("testing.clock", "pipeline.scheduler"),
        ("testing.contract", "storage.lane"),
        ("testing.contract", "storage.memory"),
        ("__main__", "face"),
    ],
)
def test_the_rule_refuses(importer: str, target: str) -> None:
    assert objection(importer, target)


@pytest.mark.parametrize(
    ("importer", "target"),
    [
        ("storage.memory", "model.execution"),
        ("storage.memory", "storage.protocol"),
        ("storage.sqlite", "storage.sqlite_schema"),
        ("stages.executor", "stages.messages"),
        ("stages.executor", "storage.lane"),
        ("pipeline.wiring", "stages.executor"),
        ("pipeline.scheduler", "storage.memory"),
        ("face", "storage.sqlite"),
        ("storage.urls", "storage.postgres"),
        ("console.main", "face"),
        ("testing.clock", "model.clock"),
        ("testing.contract", "storage.conformance"),
        ("__main__", "console.main"),
    ],
)
def test_the_rule_allows(importer: str, target: str) -> None:
    assert objection(importer, target) is None


# ---- The package


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_every_import_points_down(layer: str) -> None:
    objections = [
        f"{importer} imports {target}: {why}"
        for importer, target in own_imports(PACKAGE)
        if layer_of(importer) == layer and (why := objection(importer, target))
    ]

    assert objections == []


def test_only_the_wiring_knows_two_stages_at_once() -> None:
    known: dict[str, set[str]] = {}
    for importer, target in own_imports(PACKAGE):
        known.setdefault(importer, set()).update({target} & STAGES)

    assert [importer for importer, stages in known.items() if len(stages) > 1] in ([], [THE_CHAIN])


def test_one_module_touches_croniter() -> None:
    importers = {name_of(file, PACKAGE) for file in package_files() if "croniter" in foreign_imports(file)}

    assert importers <= {KNOWS_CRONITER}


def test_within_the_package_imports_are_relative() -> None:
    ours = {"clepsydra", *FOLDERS}

    assert [str(file) for file in package_files() if foreign_imports(file) & ours] == []


def test_the_package_needs_no_test_library() -> None:
    assert [str(file) for file in package_files() if foreign_imports(file) & OF_TESTS_ONLY] == []


# ---- Those who use it


def test_tests_docs_and_benchmarks_import_clepsydra_by_its_name() -> None:
    bare = [str(file) for file in user_files() if foreign_imports(file) & set(FOLDERS)]
    climbing = [str(file) for file in user_files() if "" in foreign_imports(file)]

    assert bare == []
    assert climbing == [], "a relative import leaves the top folder: it would reach the package as a bare folder"


def test_nothing_that_runs_when_it_is_read_is_imported_anywhere() -> None:
    files = [*package_files(), *user_files()]

    assert [str(file) for file in files if foreign_imports(file) & EXECUTABLE_WHEN_READ] == []


# ---- Reading imports


def package_files() -> Iterator[Path]:
    """The files of the package; in an editable install the root holds more than the package."""
    yield from PACKAGE.glob("*.py")
    for folder in FOLDERS:
        yield from (PACKAGE / folder).rglob("*.py")


def user_files() -> Iterator[Path]:
    for folder in USERS:
        yield from (CHECKOUT / folder).rglob("*.py")


def name_of(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "face"


def own_imports(root: Path) -> Iterator[Import]:
    """Every relative import of the package, wherever in a file it stands."""
    for file in package_files():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                yield from (Import(name_of(file, root), target) for target in targets(node, file, root))


def targets(node: ast.ImportFrom, file: Path, root: Path) -> Iterator[str]:
    """The modules that a relative import names: `from ..storage import protocol` means storage.protocol."""
    folder = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
    for alias in node.names:
        inner = folder / alias.name
        found = inner if inner.with_suffix(".py").is_file() or (inner / "__init__.py").is_file() else folder
        yield ".".join(found.relative_to(root).parts) or "face"


def foreign_imports(file: Path) -> set[str]:
    """The top-level names that a file imports absolutely, and "" for a relative import that leaves its top folder."""
    names: set[str] = set()
    depth = len(file.relative_to(CHECKOUT).parts) - 1 if file.is_relative_to(CHECKOUT) else None
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.ImportFrom) and depth is not None and node.level > depth:
            names.add("")
    return names


def test_reading_finds_the_module_behind_each_spelling(tmp_path: Path) -> None:
    root = tmp_path / "package"
    (root / "stages").mkdir(parents=True)
    (root / "stages" / "messages.py").touch()
    importer = root / "stages" / "executor.py"
    source = "from . import messages\nfrom .messages import Tick\nfrom .. import Scheduler\nfrom .. import stages"
    (root / "stages" / "__init__.py").touch()
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]

    found = [target for node in nodes for target in targets(node, importer, root)]

    assert found == ["stages.messages", "stages.messages", "face", "stages"]
