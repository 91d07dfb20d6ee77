"""Which of the server's tasks a request is about: its address says so, or it is the first.

Every address of a task stands twice, as it is and behind /tasks/NAME. Where a page names another address it stays with
its task.
"""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Flask, current_app, g

from kbdfl.server.service import TaskService
from kbdfl.server.tasks import ServedTask, Tasks

TASK = "/tasks/<task>"
EXTENSION = "kbdfl"  # among the application's


class TaskBlueprint(Blueprint):
    """A blueprint whose views do not take the name of the task; `current` has the task instead.

    Each of its routes stands twice, unless it is added with `once`.
    """

    def __init__(self, name: str, import_name: str, **more: Any) -> None:
        super().__init__(name, import_name, **more)
        self.url_value_preprocessor(_take_task)
        self.before_request(_find_task)

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        provide_automatic_options: bool | None = None,
        *,
        once: bool = False,
        **options: Any,
    ) -> None:
        """As in Flask."""
        for address in (rule,) if once else (rule, TASK + rule):
            super().add_url_rule(address, endpoint, view_func, provide_automatic_options, **options)


def install(app: Flask, served: Tasks) -> None:
    """Let `app` serve these tasks."""
    app.extensions[EXTENSION] = served

    @app.url_defaults
    def same_task(endpoint: str, values: dict[str, Any]) -> None:
        name = named()
        if served.known(name) and app.url_map.is_endpoint_expecting(endpoint, "task"):
            values.setdefault("task", name)


def tasks() -> Tasks:
    """Those that this application serves."""
    served: Tasks = current_app.extensions[EXTENSION]
    return served


def named() -> str | None:
    """The name of a task in the request's address, whether there is such a task or not."""
    name: str | None = g.get("task")
    return name


def current() -> ServedTask:
    """The task that the request in hand is about. Raises NotFound if its address names none of them."""
    return tasks().find(named())


def answered_by(task: ServedTask) -> None:
    """The request in hand named no task, and this one answers it."""
    g.answered_by = task.name


def service() -> TaskService:
    """That task's service."""
    return current().service


def _take_task(_: str | None, values: dict[str, Any] | None) -> None:
    g.task = values.pop("task", None) if values else None


def _find_task() -> None:
    current()
