"""What the recipe in docs/scale.md takes of Airflow, which has more than a hundred dependencies: the DAG's own part."""

from __future__ import annotations

from typing import Any, ClassVar, Self


class DAG:
    """A workflow: the operators made in its block belong to it."""

    open: ClassVar[DAG | None] = None

    def __init__(self, dag_id: str, **settings: Any) -> None:
        self.dag_id = dag_id
        self.settings = settings
        self.tasks: list[Any] = []

    def __enter__(self) -> Self:
        DAG.open = self
        return self

    def __exit__(self, *_: object) -> None:
        DAG.open = None
