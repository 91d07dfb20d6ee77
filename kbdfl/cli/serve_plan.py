"""What `kbdfl serve` is to serve: one task that its options say, or several that each have a file and a name."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbdfl.errors import ConfigError

if TYPE_CHECKING:
    from kbdfl.run import RunConfig

CONFIG, TASKS = "config.toml", "tasks"
SEVERAL = Path("runs") / "serve-tasks"  # where several go unless it is said


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task, where it is kept, for whom it is and whether it begins `open` or `paused`; None = without a name."""

    config: "RunConfig"
    folder: Path
    name: str | None = None
    population: str = ""
    begins: str = "open"


@dataclass(frozen=True, slots=True)
class Plan:
    """A server's folder and its tasks."""

    folder: Path
    tasks: tuple[PlannedTask, ...]

    @property
    def named(self) -> bool:
        """Whether its tasks have names, and folders of their own."""
        return self.tasks[0].name is not None

    def to_toml(self) -> str:
        """What the folder's own config.toml says, so that the folder is enough the next time."""
        from kbdfl.config import write_toml

        if not self.named:
            return self.tasks[0].config.to_toml()
        tables = {
            task.name: {
                "config": f"{TASKS}/{task.name}/{CONFIG}",
                "population": task.population,
                "state": task.begins,
            }
            for task in self.tasks
        }
        return write_toml({TASKS: tables})


def plan_of(folder: Path | None, options: dict[str, Any], named: tuple[str, ...]) -> Plan:
    """What the options of the command, its file, or the `folder` of a former server ask for.

    `named` are texts NAME=CONFIG. Raises ConfigError for what cannot be, or does not fit what the folder holds.
    """
    from kbdfl.config import read_toml

    file = options["config_file"] and Path(options["config_file"])
    document = read_toml(file) if file else {}
    if TASKS in document and named:
        raise ConfigError(f"--task must not come with a file that has tasks, got {file}")
    if named or TASKS in document:
        tables = _given(named) if named else document[TASKS]
        others = sorted(document.keys() - {TASKS, "serve"})
        if others:
            raise ConfigError(
                f"a task's settings must stand in its own file, got the table {others[0]!r:.80} in {file}"
            )
        given = [name for name, value in options.items() if value is not None and name != "config_file"]
        if given:
            raise ConfigError(
                f"--{given[0].replace('_', '-')} must not come with several tasks: each has a file of its own"
            )
        base = Path() if named else Path(str(file)).parent
        return _several(folder or SEVERAL, tables, base=base)
    if folder is not None and (folder / CONFIG).is_file():
        kept = read_toml(folder / CONFIG)
        if TASKS in kept:
            if any(value is not None for value in options.values()):
                raise ConfigError(
                    f"{folder} holds several tasks; serve it as it is, or with a file that names them"
                )
            return _several(folder, kept[TASKS], base=folder)
    return _one(folder, options)


def _one(folder: Path | None, options: dict[str, Any]) -> Plan:
    """A folder that was served before must be asked for the same again, if anything is asked for."""
    from kbdfl.options import config_from
    from kbdfl.run import RunConfig

    asked = any(value is not None for value in options.values())
    if folder is None:
        config = config_from(options)
        folder = Path("runs") / f"serve-{config.settings.preset}"
    kept = folder / CONFIG
    if not kept.is_file():
        return Plan(folder, (PlannedTask(config_from(options), folder),))
    before = RunConfig.load(kept)
    if not asked:
        return Plan(folder, (PlannedTask(before, folder),))
    config = config_from(options if options["config_file"] else options | {"config_file": str(kept)})
    _same(config, before, folder)
    return Plan(folder, (PlannedTask(config, folder),))


def _several(folder: Path, tables: Any, *, base: Path) -> Plan:
    """Tasks by their tables, whose files are found from `base`."""
    from kbdfl.config import read_toml
    from kbdfl.run import RunConfig
    from kbdfl.server.tasks import check_name

    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"{TASKS} must be tables, one a task, got {tables!r}"[:200])
    if (folder / CONFIG).is_file() and TASKS not in read_toml(folder / CONFIG):
        raise ConfigError(f"{folder} holds one task, which has no name; choose another --folder")
    tasks = []
    for name, table in tables.items():
        check_name("task", name)
        place, file, population, begins = folder / TASKS / name, *_fields(name, table)
        config = RunConfig.load(base / file)
        if (place / CONFIG).is_file():
            _same(config, RunConfig.load(place / CONFIG), place)
        tasks.append(PlannedTask(config, place, name, check_name("population", population), begins))
    return Plan(folder, tuple(tasks))


def _fields(name: str, table: Any) -> tuple[str, str, str]:
    """File, population and first state of a task's table."""
    if not isinstance(table, dict):
        raise ConfigError(f"{TASKS}.{name} must be a table, got {table!r}"[:200])
    values = {"population": name, "state": "open"} | table
    for field, value in values.items():
        if field not in ("config", "population", "state"):
            raise ConfigError(
                f"{TASKS}.{name} has no field {field!r:.80}; its fields are config, population, state"
            )
        if not isinstance(value, str):
            raise ConfigError(f"{TASKS}.{name}.{field} must be str, got {value!r}"[:200])
    if "config" not in values:
        raise ConfigError(f"{TASKS}.{name} must name its file as config")
    if values["state"] not in ("open", "paused"):
        raise ConfigError(f"{TASKS}.{name}.state must be open or paused, got {values['state']!r}"[:200])
    return values["config"], values["population"], values["state"]


def _given(named: tuple[str, ...]) -> dict[str, Any]:
    """The tables that --task NAME=CONFIG stand for."""
    tables: dict[str, Any] = {}
    for text in named:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise ConfigError(f"--task must be NAME=CONFIG, got {text!r}"[:200])
        if name in tables:
            raise ConfigError(f"tasks must have different names, got {name!r} twice"[:200])
        tables[name] = {"config": file}
    return tables


def _same(config: "RunConfig", before: "RunConfig", folder: Path) -> None:
    if config != before:
        raise ConfigError(f"{folder} holds a run with another configuration; choose another --folder")
