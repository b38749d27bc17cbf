"""Composition of overrides to a configuration with Hydra, and execution of its runs.

This is the only module that imports Hydra and OmegaConf. Modules that are slow to import are imported where
they are first needed, so that ``--help`` and ``--cfg job`` answer without delay.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped, unused-ignore]

from qexp.cli.hydra_errors import describe_error
from qexp.cli.overrides import DRY_RUN, CommandLine
from qexp.cli.words import width_problem
from qexp.console import shown_path
from qexp.environment import check_environment, conf_folder
from qexp.errors import FAILED, INTERRUPTED, INVALID, OK, ConfigError, LaunchError, QexpError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qexp.execution.plan import Plan
    from qexp.execution.sweep_log import SweepLog
    from qexp.records.record import Record

_OWN_PROVIDERS = ("command-line", "hydra.searchpath in command-line")
"""Where Hydra has folders of one's own configuration from: ``--config-dir``, and all that were added."""

_codes: list[int] = []
"""Exit codes of runs that are not part of a sweep."""
Show = Callable[["Sequence[Record]", Path], None]


def main(arguments: Sequence[str] | None = None, *, show: Show | None = None) -> int:
    """Run the experiment or sweep of the overrides, and return the exit code (:mod:`qexp.errors`).

    ``show`` prints the end of a sweep, in place of the tables of its jobs and the overview.
    """
    words = sys.argv[1:] if arguments is None else arguments
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through, so that they are reworded here
    # OpenMP reads this when torch is imported. Threads that spin while they wait take cores from computing
    # threads as soon as anything else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        check_environment()
        command_line = CommandLine(words)
        _offer_widths(command_line.all)
        command_line.check()
        for note in command_line.notes:
            print(note, file=sys.stderr)
        code = _plan(command_line) if command_line.dry_run else _launch(command_line, show)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        print(f"error: {describe_error(error)}", file=sys.stderr)
        code = INVALID
    except QexpError as error:
        print(f"error: {error}", file=sys.stderr)
        code = FAILED if isinstance(error, LaunchError) else INVALID
    except ValueError as error:
        if "Config group override must be" not in str(error):
            raise
        print("error: a group=null: it names no option; leave the word out", file=sys.stderr)
        code = INVALID
    except OSError as error:  # Hydra creates its folder before the run starts
        print(f"error: {error}; QEXP_OUTPUTS names a folder that can be written", file=sys.stderr)
        code = INVALID
    return code


def composed(words: Sequence[str]) -> dict[str, Any]:
    """Return the configuration of a single run as plain values.

    Raises:
        ConfigError: The words do not compose.
    """
    trees: list[dict[str, Any]] = []
    os.environ["HYDRA_FULL_ERROR"] = "1"
    command_line = CommandLine(words)
    _offer_widths(command_line.all)
    command_line.check()
    try:
        with TemporaryDirectory() as folder:
            _hydra(command_line.for_hydra(Path(folder)), lambda config: trees.append(_tree(config)))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(describe_error(error)) from error
    return trees[0]


def _launch(command_line: CommandLine, show: Show | None) -> int:
    """Run one job, or a sweep with its log, and return the exit code."""
    sweep_logs: list[SweepLog] = []
    _codes.clear()
    try:
        with _launchers(partial(_supervised, command_line, sweep_logs)):
            _hydra(command_line.for_hydra(), partial(_task, tables=show is None))
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:
        if end.code == INTERRUPTED:
            return INTERRUPTED
        raise
    finally:
        _print_summaries(sweep_logs, show)
    return max((sweep_log.exit_code for sweep_log in sweep_logs), default=max(_codes, default=0))


def _print_summaries(sweep_logs: Sequence[SweepLog], show: Show | None) -> None:
    """Print the summaries of sweeps; a sweep whose overrides were rejected has no jobs and is skipped."""
    for sweep_log in (each for each in sweep_logs if each.jobs):
        from qexp.execution.sweep_log import records_of, summary
        from qexp.records.record import outputs_root
        from qexp.reporting.formats.terminal import print_sweep

        print(f"{summary(sweep_log)}\nledger: {shown_path(sweep_log.folder)}", file=sys.stderr)
        (show or print_sweep)(records_of(sweep_log, outputs_root()), outputs_root())


def _plan(command_line: CommandLine) -> int:
    """Print the plan of a command without running it, and return the exit code."""
    from qexp.execution.plan import Plan

    plan = Plan()
    with TemporaryDirectory() as folder, _launchers(partial(_planned, plan)):
        _hydra(
            command_line.for_hydra(Path(folder)),
            lambda config: plan.add(_tree(config), recipe=HydraConfig.get().runtime.choices.get("recipe")),
        )
    plan.show()
    return OK if plan.complete else INVALID


def _hydra(arguments: Sequence[str], task: Callable[[DictConfig], Any]) -> None:
    """Let Hydra compose the overrides and call the task for each job."""
    argv = sys.argv
    sys.argv = ["qexp", *arguments]
    try:
        with _options_listed_once():
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(task)()
    finally:
        sys.argv = argv


@contextmanager
def _options_listed_once() -> Iterator[None]:
    """Have Hydra copy its repository of options once, not for each group that its help lists."""
    original = ConfigLoaderImpl._parse_overrides_and_create_caching_repo
    kept: dict[int, Any] = {}

    def parse(self: ConfigLoaderImpl, config_name: str | None, overrides: list[str]) -> Any:
        if config_name is not None or overrides:
            return original(self, config_name, overrides)
        if id(self) not in kept:
            kept[id(self)] = original(self, None, [])
        return kept[id(self)]

    ConfigLoaderImpl._parse_overrides_and_create_caching_repo = parse  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl._parse_overrides_and_create_caching_repo = original  # type: ignore[method-assign]


@contextmanager
def _launchers(wrap: Callable[[Any, HydraContext, DictConfig], Any]) -> Iterator[None]:
    """Replace every launcher of Hydra's sweepers by the result of ``wrap``, within the block.

    Hydra 1.3 has no hook that sees all jobs of a sweep before they run. Its callbacks get one job at a time,
    in the job's process, and are called at the end only if no job failed.
    """
    original = Plugins.instantiate_launcher

    def instantiate(
        self: Plugins, hydra_context: HydraContext, task_function: Any, config: DictConfig
    ) -> Any:
        launcher = original(self, hydra_context, task_function, config)
        return wrap(launcher, hydra_context, config)

    Plugins.instantiate_launcher = instantiate  # type: ignore[method-assign]
    try:
        yield
    finally:
        Plugins.instantiate_launcher = original  # type: ignore[method-assign]


def _supervised(
    command_line: CommandLine,
    sweep_logs: list[SweepLog],
    launcher: Any,
    context: HydraContext,
    config: DictConfig,
) -> Any:
    from qexp.execution.sweep import SupervisedLauncher
    from qexp.execution.sweep_log import SweepLog

    sweep_log = SweepLog(Path(config.hydra.sweep.dir).absolute())
    sweep_log.begin(command_line.name, command_line.identity)
    sweep_logs.append(sweep_log)
    return SupervisedLauncher(launcher, sweep_log, partial(_composed, context, config))


def _planned(plan: Plan, launcher: Any, context: HydraContext, config: DictConfig) -> Any:
    from qexp.execution.plan import DryRunLauncher

    if not str(config.hydra.sweeper._target_).endswith("BasicSweeper"):
        raise ConfigError(
            f"{DRY_RUN}: {config.hydra.sweeper._target_} chooses each job by the scores of earlier ones, so "
            f"there is no plan; run it without {DRY_RUN}"
        )
    return DryRunLauncher(plan, partial(_composed, context, config))


def _composed(context: HydraContext, config: DictConfig, overrides: Sequence[str]) -> Mapping[str, Any]:
    """Compose the configuration of a job of a sweep."""
    return _tree(context.config_loader.load_sweep_config(config, list(overrides)))


def _tree(config: DictConfig) -> dict[str, Any]:
    """Return the configuration without Hydra's own section, as plain values."""
    experiment = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    tree = OmegaConf.to_container(experiment, resolve=True, throw_on_missing=True)
    assert isinstance(tree, dict)
    return tree  # type: ignore[return-value]


def _task(config: DictConfig, *, tables: bool = True) -> float | None:
    """Execute one composed run, and return its score, which search sweepers optimize."""
    from qexp.execution.job import Job, SweepPosition
    from qexp.execution.sweep_log import sweep_log_in

    hydra_config = HydraConfig.get()
    if hydra_config.mode != RunMode.MULTIRUN:
        job = Job(
            _tree(config),
            recipe=hydra_config.runtime.choices.get("recipe"),
            overrides=_overrides(hydra_config),
        )
        _codes.append(job.run())
        return None
    sweep_log = sweep_log_in(Path(hydra_config.sweep.dir).absolute())
    assert sweep_log is not None, f"no ledger in {hydra_config.sweep.dir}"
    if (
        result := sweep_log.entry(hydra_config.job.num)
    ) is not None:  # the launcher failed and was started again
        return result.score
    beside = _jobs_beside(hydra_config, len(sweep_log.jobs))
    place = SweepPosition(
        sweep_log, hydra_config.job.num, list(hydra_config.overrides.task), crowded=beside > 1
    )
    recipe = hydra_config.runtime.choices.get("recipe")
    job = Job(
        _tree(config),
        sweep=True,
        place=place,
        recipe=recipe,
        overrides=_overrides(hydra_config),
        threads=_share(beside),
        shown=tables,
    )
    code = job.run()
    if code == INTERRUPTED:
        sys.exit(INTERRUPTED)
    entry = sweep_log.entry(hydra_config.job.num)
    return entry.score if entry else None


def _overrides(composed: Any) -> list[str] | None:
    """Words of a job; None if a whole configuration of the user's was composed with them.

    A folder with options of the user's own is one of the words.
    """
    if composed.job.config_name != "config":
        return None
    named = [source for source in composed.runtime.config_sources if source.provider in _OWN_PROVIDERS]
    folders = dict.fromkeys(source.path for source in named)
    return [*(f"--config-dir={folder}" for folder in folders), *composed.overrides.task]


def _jobs_beside(hydra_config: Any, jobs: int) -> int:
    """Return the number of jobs of the sweep that share this machine without a scheduler."""
    launcher, cpus = hydra_config.launcher, os.cpu_count() or 1
    if "n_jobs" in launcher:
        workers = int(launcher.n_jobs)
        return min(jobs, workers if workers > 0 else max(1, cpus + 1 + workers))
    return jobs if str(launcher.get("_target_", "")).endswith("LocalLauncher") else 1


def _share(beside: int) -> int | None:
    """Return the CPU threads of each of ``beside`` jobs, or None for a single job."""
    from qexp.context import cores

    return None if beside == 1 else max(1, cores() // beside)


def _offer_widths(words: Sequence[str]) -> None:
    """Register ``quant`` options without a file, such as ``w5a7``: pairs of 2 to 16 bits, 32 for float."""
    names = {file.stem for file in (conf_folder() / "quant").glob("*.yaml")}
    for weight, activation in re.findall(r"\bw(\d+)a(\d+)\b", " ".join(words)):
        name = f"w{weight}a{activation}"
        bits = {"weight_bits": int(weight), "activation_bits": int(activation)}
        if name not in names and not width_problem(name):
            ConfigStore.instance().store(group="quant", name=name, node=bits)
