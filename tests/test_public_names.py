"""What the package offers by name, and what importing it costs."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
import typing
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

import phygitals_async
import phygitals_transports
from phygitals_async import models, refresh, sandbox, version
from support import ROOT, public_modules

CORE = Path(phygitals_async.__file__).parent


def _public(module: ModuleType) -> set[str]:
    return {
        name for name, value in vars(module).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }


@pytest.mark.parametrize("module", [phygitals_async, models])
def test_all_is_what_the_package_defines(module: ModuleType) -> None:
    """`__all__` lists the public names, every one of them and no other, in order."""
    names: list[str] = module.__all__
    # Some are imported when they are first asked for.
    assert all(hasattr(module, name) for name in names)
    assert set(names) == _public(module)
    assert names == sorted(names)
    assert len(names) == len(set(names))


def test_all_of_the_transports_can_be_had() -> None:
    """Each listed transport is importable, listed by `dir`, and named as listed."""
    names = phygitals_transports.__all__
    assert names == sorted(set(names)) == dir(phygitals_transports)
    assert all(getattr(phygitals_transports, name).__name__ == name for name in names)
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = phygitals_transports.Nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize("package", [phygitals_async, phygitals_transports, refresh, sandbox])
def test_type_checkers_know_every_public_name(package: ModuleType) -> None:
    """Names loaded late are imported for type checkers, or defined: what those find in `__getattr__` is `Any`."""
    tree = ast.parse(Path(package.__file__ or "").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    known = {alias.asname or alias.name for node in imports for alias in node.names}
    assert sorted(set(package.__all__) - known) == []
    # They would take every misspelt name for one that the package has.
    seen = [node for node in tree.body if not isinstance(node, ast.If)]
    assert [node for node in seen if "__getattr__" in ast.unparse(node)] == []


def test_a_star_import_gives_all_of_it() -> None:
    """`from phygitals_async import *` binds exactly the listed names."""
    names: dict[str, object] = {}
    exec("from phygitals_async import *", names)  # noqa: S102 - a star import cannot stand in a function.
    names.pop("__builtins__")
    assert names == {name: getattr(phygitals_async, name) for name in phygitals_async.__all__}


def test_every_public_name_is_documented() -> None:
    """Each public class and function says what it is."""
    named = {name: getattr(phygitals_async, name) for name in phygitals_async.__all__}
    documented = {name: value for name, value in named.items() if inspect.isclass(value) or inspect.isfunction(value)}
    assert len(documented) > 30
    assert [name for name, value in documented.items() if not (value.__doc__ or "").strip()] == []


def _signatures() -> Iterator[tuple[str, Any]]:
    """Yield each public class and function that is ours, and each method and property, with its full name."""
    for module in public_modules():
        names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
        for value in (getattr(module, name) for name in names):
            if not isinstance(value, type | FunctionType) or not value.__module__.startswith("phygitals"):
                continue
            yield f"{value.__module__}.{value.__qualname__}", value
            for name, member in vars(value).items() if isinstance(value, type) else ():
                function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                if inspect.isfunction(function):
                    yield f"{value.__module__}.{value.__qualname__}.{name}", function


def test_every_public_signature_resolves_at_run_time() -> None:
    """Dependency injection, command lines and schemas are made from the types of arguments."""
    found = dict(_signatures())
    assert "phygitals_async.client.PhygitalsClient.__init__" in found
    assert "phygitals_transports.aiohttp.AiohttpTransport" in found
    assert len(found) > 500
    unresolved = {}
    for name, value in found.items():
        try:
            typing.get_type_hints(value)
        except (NameError, TypeError) as error:
            unresolved[name] = error
    assert unresolved == {}


def test_the_version_is_the_distributions() -> None:
    """`__version__` is what the build takes for the version, and an unknown name is none."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "phygitals_async/version.py"
    assert phygitals_async.__version__ == version.VERSION
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", phygitals_async.__version__)
    with pytest.raises(AttributeError, match="'phygitals_async' has no attribute 'nonsense'"):
        _ = phygitals_async.nonsense  # type: ignore[attr-defined]
    assert not hasattr(phygitals_async, "nonsense")


def test_it_works_without_metadata_of_a_distribution(tmp_path: Path) -> None:
    """As in a zip of a cloud function, in an executable, or vendored: there is a version, a client and a command."""
    archive = tmp_path / "packages.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for package in (CORE, Path(phygitals_transports.__file__).parent):
            for file in package.rglob("*.py"):
                packed.write(file, file.relative_to(package.parent))
    program = f"""if True:
        import sys
        from importlib import metadata

        sys.path.insert(0, {str(archive)!r})
        metadata.Distribution.discover = classmethod(lambda *_, **__: iter(()))
        import phygitals_async
        from phygitals_async.sandbox.__main__ import main

        assert phygitals_async.__file__.startswith({str(archive)!r})
        api = phygitals_async.PhygitalsClient(api_key="sandbox-test")
        print(phygitals_async.__version__, api)
        try:
            main(["--help"])
        except SystemExit as end:
            print(end.code)
    """
    shown = _run(program).splitlines()
    assert shown[0].startswith(f"{version.VERSION} <PhygitalsClient sandbox at")
    assert shown[-1] == "0"


@pytest.mark.parametrize("statement", ["import phygitals_async", "from phygitals_async import *"])
def test_importing_the_core_loads_no_http_library(statement: str) -> None:
    """In a fresh interpreter, neither an engine nor a transport is loaded by the core."""
    program = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = set(_run(program).split())
    assert "phygitals_async" in loaded
    assert not loaded & {"aiohttp", "yarl", "multidict", "aiosignal", "frozenlist", "phygitals_transports"}
    assert not loaded & {"httpx", "httpcore", "requests", "urllib3", "trio", "pydantic", "rich", "pytest"}


def test_one_transport_does_not_load_the_engine_of_another() -> None:
    """`MemoryTransport` comes without aiohttp, and the client without it too when given one."""
    program = (
        "import sys\nfrom phygitals_async import PhygitalsClient\nfrom phygitals_transports import MemoryTransport\n"
        "PhygitalsClient(MemoryTransport(print), api_key='sandbox-test')\nprint('aiohttp' in sys.modules)"
    )
    assert _run(program) == "False\n"


def _run(program: str) -> str:
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# Arrows point one way


def _imports(node: ast.AST, inside: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield each imported module's top-level name with the dotted name of the scope that imports it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _imports(child, (*inside, child.name))
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name.partition(".")[0], ".".join(inside)) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            yield (child.module or "").partition(".")[0], ".".join(inside)
        yield from _imports(child, inside)


def _importers(package: str) -> set[tuple[str, str]]:
    return {
        (path.relative_to(CORE).as_posix(), scope)
        for path in CORE.rglob("*.py")
        for name, scope in _imports(ast.parse(path.read_text(encoding="utf-8")))
        if name == package
    }


def test_the_core_names_a_transport_in_three_places_only() -> None:
    """Each is inside a function that needs it: the client's default, and the command lines."""
    importers = _importers("phygitals_transports")
    assert {path for path, _ in importers} == {"client.py", "cli/_transport.py", "sandbox/served/program.py"}
    assert ("client.py", "PhygitalsClient.__init__") in importers
    assert all(scope for _, scope in importers)
    assert len(importers) == 3


@pytest.mark.parametrize("engine", ["aiohttp", "yarl", "multidict", "httpx", "trio", "pydantic"])
def test_the_core_imports_no_engine(engine: str) -> None:
    """Not even lazily."""
    assert _importers(engine) == set()


@pytest.mark.parametrize("package", ["click", "rich"])
def test_only_the_command_line_uses_what_its_extra_installs(package: str) -> None:
    """Everything else does without."""
    assert {path.partition("/")[0] for path, _ in _importers(package)} == {"cli"}


def test_the_search_for_imports_finds_imports() -> None:
    """The two tests above see what they look for, at any depth."""
    source = "import a.b\nclass C:\n    def f(self):\n        if 1:\n            from d.e import g\n"
    assert list(_imports(ast.parse(source))) == [("a", ""), ("d", "C.f")]
    assert ("config.py", "") in _importers("attrs")


def test_dir_lists_what_is_imported_late_too() -> None:
    """Completion in an editor or a shell finds every public name."""
    assert dir(phygitals_async) == sorted(phygitals_async.__all__)
