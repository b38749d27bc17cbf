"""``python -m qexp``: words to one plain tree, and the tree to a run.

The only file that knows Hydra and OmegaConf. Whatever is slow to import is imported where it is
first needed, so that ``--help`` and ``--cfg job`` answer at once.
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
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from qexp.cli.overrides import DRY_RUN, Words
from qexp.environment import check_environment
from qexp.errors import FAILED, INTERRUPTED, ConfigError, QexpError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qexp.execution.dry_run import Plan
    from qexp.execution.sweep_log import Ledger

WIDTHS = (*range(2, 17), 32)
"""Bits that ``quant=`` can name, as in :class:`qexp.config.Quant`."""

_codes: list[int] = []
"""Exit code of a run that is not part of a sweep."""


def conf_folder() -> Path:
    """The configuration: inside the package in an installed wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the overrides say; the exit code is 0 only if every run is well."""
    words = Words(sys.argv[1:] if arguments is None else arguments)
    _offer_widths(words.all)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise what goes wrong, so that it is worded here
    # Read when torch is imported. A thread that spins while it waits takes the core from one that computes
    # as soon as anything else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        check_environment()
        words.check()
        code = _plan(words) if words.dry_run else _launch(words)
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {_reword(error)}", file=sys.stderr)
        code = FAILED
    except QexpError as error:
        print(f"error: {error}", file=sys.stderr)
        code = FAILED
    except ValueError as error:
        if "Config group override must be" not in str(error):
            raise
        print("error: a group=null: it names no option; leave the word out", file=sys.stderr)
        code = FAILED
    except OSError as error:  # Hydra makes its folder before the run begins
        print(f"error: {error}; QEXP_OUTPUTS names a folder that can be written", file=sys.stderr)
        code = FAILED
    return code


def _launch(words: Words) -> int:
    """Run one job, or a sweep with its ledger; the exit code."""
    ledgers: list[Ledger] = []
    try:
        with _launchers(partial(_watched, words, ledgers)):
            _hydra(words.for_hydra(), _task)
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:
        if end.code == INTERRUPTED:
            return INTERRUPTED
        raise
    finally:
        _tell(ledgers)
    return max((ledger.exit_code for ledger in ledgers), default=max(_codes, default=0))


def _tell(ledgers: Sequence[Ledger]) -> None:
    """Print how sweeps ended; one whose words were refused has no jobs."""
    for ledger in (each for each in ledgers if each.jobs):
        from qexp.execution.sweep_log import summary

        print(f"{summary(ledger)}\nledger: {ledger.folder}", file=sys.stderr)


def _plan(words: Words) -> int:
    """Say what a command would do, and do nothing; the exit code."""
    from qexp.execution.dry_run import Plan

    plan = Plan()
    with TemporaryDirectory() as folder, _launchers(partial(_planned, plan)):
        _hydra(words.for_hydra(Path(folder)), lambda config: plan.add(_tree(config)))
    plan.show()
    return 0 if plan.complete else FAILED


def _hydra(words: Sequence[str], task: Callable[[DictConfig], Any]) -> None:
    """Let Hydra compose what the words say, and call the task for each job."""
    before = sys.argv
    sys.argv = [before[0], *words]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(task)()
    finally:
        sys.argv = before


@contextmanager
def _launchers(wrap: Callable[[Any, HydraContext, DictConfig], Any]) -> Iterator[None]:
    """Within it, Hydra's sweepers get every launcher as ``wrap`` returns it.

    Hydra 1.3 has no other place where a program can see all jobs of a sweep before they run: its callbacks
    are told of one job at a time, in the job's process, and of the end only if no job failed.
    """
    plain = Plugins.instantiate_launcher

    def instantiate(
        self: Plugins, hydra_context: HydraContext, task_function: Any, config: DictConfig
    ) -> Any:
        launcher = plain(self, hydra_context, task_function, config)
        return wrap(launcher, hydra_context, config)

    Plugins.instantiate_launcher = instantiate  # type: ignore[method-assign]
    try:
        yield
    finally:
        Plugins.instantiate_launcher = plain  # type: ignore[method-assign]


def _watched(
    words: Words, ledgers: list[Ledger], launcher: Any, context: HydraContext, config: DictConfig
) -> Any:
    from qexp.execution.sweep import Watched
    from qexp.execution.sweep_log import Ledger

    ledger = Ledger(Path(config.hydra.sweep.dir).absolute())
    ledger.begin(words.name, words.identity)
    ledgers.append(ledger)
    return Watched(launcher, ledger, partial(_composed, context, config))


def _planned(plan: Plan, launcher: Any, context: HydraContext, config: DictConfig) -> Any:
    from qexp.execution.dry_run import Planned

    if not str(config.hydra.sweeper._target_).endswith("BasicSweeper"):
        raise ConfigError(
            f"{DRY_RUN}: {config.hydra.sweeper._target_} chooses each job by the scores of earlier ones, so "
            f"there is no plan; run it without {DRY_RUN}"
        )
    return Planned(plan, partial(_composed, context, config))


def _composed(context: HydraContext, config: DictConfig, words: Sequence[str]) -> Mapping[str, Any]:
    """Configuration of a job of a sweep."""
    return _tree(context.config_loader.load_sweep_config(config, list(words)))


def _tree(config: DictConfig) -> dict[str, Any]:
    """Plain values of everything but Hydra's own section."""
    ours = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    tree = OmegaConf.to_container(ours, resolve=True, throw_on_missing=True)
    assert isinstance(tree, dict)
    return tree  # type: ignore[return-value]


def _task(config: DictConfig) -> float | None:
    """One composed run; its Record says what came of it. The return value is for searches: its score."""
    from qexp.execution.job import Job, Place
    from qexp.execution.sweep_log import ledger_in

    known = HydraConfig.get()
    if known.mode != RunMode.MULTIRUN:
        _codes.append(Job(_tree(config), recipe=known.runtime.choices.get("recipe")).run())
        return None
    ledger = ledger_in(Path(known.sweep.dir).absolute())
    assert ledger is not None, f"no ledger in {known.sweep.dir}"
    if (ended := ledger.entry(known.job.num)) is not None:  # its launcher broke down and was started again
        return ended.score
    beside = _jobs_beside(known, len(ledger.jobs))
    place = Place(ledger, known.job.num, list(known.overrides.task), crowded=beside > 1)
    recipe = known.runtime.choices.get("recipe")
    code = Job(_tree(config), sweep=True, place=place, recipe=recipe, threads=_share(beside)).run()
    if code == INTERRUPTED:
        sys.exit(INTERRUPTED)
    entry = ledger.entry(known.job.num)
    return entry.score if entry else None


def _jobs_beside(known: Any, jobs: int) -> int:
    """How many jobs of the sweep share this machine with no scheduler to divide it."""
    launcher, there = known.launcher, os.cpu_count() or 1
    if "n_jobs" in launcher:
        workers = int(launcher.n_jobs)
        return min(jobs, workers if workers > 0 else max(1, there + 1 + workers))
    return jobs if str(launcher.get("_target_", "")).endswith("LocalLauncher") else 1


def _share(beside: int) -> int | None:
    """CPU threads of each of so many jobs; None if there is no need to divide."""
    from qexp.context import cores

    return None if beside == 1 else max(1, cores() // beside)


def _offer_widths(words: Sequence[str]) -> None:
    """Make ``quant=w5a7`` an option although no file says so: any pair of 2 to 16 bits, or 32 for float."""
    known = {file.stem for file in (conf_folder() / "quant").glob("*.yaml")}
    for weight, activation in re.findall(r"\bw(\d+)a(\d+)\b", " ".join(words)):
        name, bits = (
            f"w{weight}a{activation}",
            {"weight_bits": int(weight), "activation_bits": int(activation)},
        )
        if name not in known and all(value in WIDTHS for value in bits.values()):
            ConfigStore.instance().store(group="quant", name=name, node=bits)


def _reword(error: Exception) -> str:
    """Hydra's and OmegaConf's errors with the field, what is allowed, and what to do."""
    words = str(error).strip()
    if field := re.search(r"Could not override '([\w.]+)'", words):
        from qexp.config.validation_errors import unknown_field

        return unknown_field(field[1])
    words = words.split("\nConfig search path", 1)[0]
    if found := _NO_OPTION.match(words):
        return _no_option(found)
    return words


_NO_OPTION = re.compile(
    r"In '(?P<place>[^']+)': Could not find '(?P<group>\w+)/(?P<option>[^']+)'(?P<known>.*)", re.DOTALL
)


def _no_option(found: re.Match[str]) -> str:
    """An option that a group does not have, in one line."""
    from qexp.config.validation_errors import unknown_option

    group, option, place = found["group"], found["option"], found["place"]
    known = re.findall(r"^\t(\S+)$", found["known"], re.MULTILINE)
    known += sorted(f"{file.parent.name}/{file.stem}" for file in (conf_folder() / group).glob("*/*.yaml"))
    more = "and any other pair of 2 to 16 bits, 32 for floating point, such as quant=w5a7"
    asked_in = "" if place == "config" else place
    return unknown_option(group, option, known, asked_in, more if group == "quant" else "")
