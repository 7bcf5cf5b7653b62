"""The operator of the recipe in docs/scale.md, of which a test runs the command."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG


class BashOperator:
    """A task that runs a command, with the worker's environment where `append_env` says so."""

    def __init__(
        self,
        *,
        task_id: str,
        bash_command: str,
        append_env: bool = False,
        retries: int = 0,
        retry_delay: timedelta = timedelta(minutes=5),
    ) -> None:
        self.task_id = task_id
        self.bash_command = bash_command
        self.append_env = append_env
        self.retries = retries
        self.retry_delay = retry_delay
        self.downstream: list[BashOperator] = []
        assert DAG.open is not None
        DAG.open.tasks.append(self)

    def __rshift__(self, other: BashOperator) -> BashOperator:
        self.downstream.append(other)
        return other
