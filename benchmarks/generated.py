"""The client that openapi-python-client makes of `docs/openapi.json`, made when it is asked for."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

PACKAGE: Final = "generated_phygitals_client"
_ROOT: Final = Path(__file__).parent.parent
_FOLDER: Final = _ROOT / ".benchmarks"


def generate() -> str:
    """Make the package afresh, and return the folder to be put on the path."""
    config = _FOLDER / "config.json"
    _FOLDER.mkdir(exist_ok=True)
    config.write_text(f'{{"package_name_override": "{PACKAGE}", "project_name_override": "{PACKAGE}"}}')
    command = [
        *(sys.executable, "-m", "openapi_python_client", "generate", "--overwrite", "--meta", "none"),
        *("--path", str(_ROOT / "docs" / "openapi.json"), "--config", str(config)),
        *("--output-path", str(_FOLDER / PACKAGE)),
    ]
    # It formats what it has made with the ruff of this environment.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PATH": path})
    return str(_FOLDER)


def operation(name: str) -> ModuleType:
    """Return the module of an operation, under whatever tag it is filed."""
    api = importlib.import_module(f"{PACKAGE}.api")
    found = [m.name for m in pkgutil.walk_packages(api.__path__, f"{api.__name__}.") if m.name.endswith(f".{name}")]
    return importlib.import_module(found[0])
