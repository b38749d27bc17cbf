"""What a run needs of this machine, as far as it is known before any work: a GPU, and runtimes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from qexp.config import RUNTIMES, Experiment, NoDeploy, RuntimeName
from qexp.deploy.hardware import may_have_gpu
from qexp.errors import ConfigError


def check_available(experiment: Experiment) -> None:
    """Check that the machine has what an experiment asks for.

    Of several runtimes one is enough: the run records why it could not have the others.

    Raises:
        ConfigError: There is no GPU, or no runtime of those that are asked for can run here.
    """
    if experiment.machine.accelerator == "gpu" and not may_have_gpu():
        raise ConfigError(
            "machine.accelerator=gpu: this machine has no CUDA device; use machine=cpu, or run it on one "
            "that has"
        )
    deploy = experiment.deploy
    if isinstance(deploy, NoDeploy):
        return
    problems = {runtime: runtime_problem(runtime) for runtime in deploy.runtimes}
    if all(problems.values()):
        reasons = "; ".join(f"{runtime} {problem}" for runtime, problem in problems.items())
        raise ConfigError(
            f"deploy.runtimes={','.join(deploy.runtimes)}: {reasons}; use deploy=onnxruntime, or "
            "deploy=none and "
            "qexp bench on a machine that has it"
        )


def runtime_problem(runtime: RuntimeName) -> str | None:
    """Return why a runtime cannot run here, or None if nothing is known against it."""
    spec = RUNTIMES[runtime]
    if runtime.startswith("tensorrt") and not may_have_gpu():
        return "needs an NVIDIA GPU, and this machine has none"
    if not any(_is_installed(package) for package in spec.packages):
        return f"is not installed (pip install {spec.packages[0]})"
    return None


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
