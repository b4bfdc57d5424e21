"""The house's layers, read from the imports: every import goes to the same room or one below, and av and torch stand at their leaves."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "a2n_video"

# Lowest first; a module may import its own layer and those before it.
LAYERS = (
    {"errors", "media", "options"},
    {"net"},
    {"engine"},
    {"upscaler", "frames"},
    {"io"},
    {"job"},
    {"tools", "vs_engine", "cli", "cli_options", "__main__", "training"},
)
# (module, imported room): why it may.
EXCEPTIONS: dict[tuple[str, str], str] = {}
AV_LEAVES = {"io", "frames", "training", "tools"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else name


def layer(name: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if name in rooms)


def imports(path: Path) -> set[str]:
    """Modules a file imports, those for type checkers only left out."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            inside = (f"{node.module}.{alias.name}" for alias in node.names)
            found.update(name for name in inside if ROOT.joinpath(*name.split(".")).with_suffix(".py").exists())
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for name in imports(path):
        if name.startswith("a2n_video.") and (str(path.relative_to(PACKAGE)), room(name)) not in EXCEPTIONS:
            assert layer(room(name)) <= layer(own), f"{path.name} ({own}) imports {name}, which lies above it"
            if own != "training":
                assert room(name) != "training", f"{path.name} imports {name}: nothing outside training may"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_imports_stand_at_their_leaves(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    roots = {name.split(".")[0] for name in imports(path)}
    if own not in AV_LEAVES:
        assert "av" not in roots, "only io, the frame adapters and the tools import av"
    if own in ("media", "errors", "options"):
        assert not roots & {"av", "torch"}, "pure values"
    if path != PACKAGE / "job" / "cluster" / "distributed.py":
        assert "ray" not in roots


@pytest.mark.parametrize("path", sorted((PACKAGE / "io").glob("*.py")), ids=lambda path: path.name)
def test_frames_know_nothing_of_the_result_file(path: Path) -> None:
    assert not {name for name in imports(path) if name.startswith("a2n_video.io.mux")}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Late imports inside functions count as well: they hide a circle, they do not undo it."""
    graph = {module_name(path): imports(path) for path in modules()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name in graph and name not in done:
            for other in sorted(graph[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())
