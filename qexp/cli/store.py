"""List, verify and clean the artifact store: ``qexp store ls``, ``verify`` and ``gc``.

Exit codes: 0, success; 1, an artifact is damaged, or something could not be removed; 2, the command is not
possible now.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from qexp.artifacts.manifest import problem_of
from qexp.cli.options import add_outputs
from qexp.console import print_out
from qexp.environment import unread_variable
from qexp.errors import FAILED, INVALID, OK, StoreError
from qexp.execution.crash_records import count_running
from qexp.records.record import outputs_root, read_all, records_folder
from qexp.records.store_usage import Item, items, uses
from qexp.reporting.table import MEBIBYTE, NOT_REQUESTED, Table, markdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand, and return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if problem := unread_variable():
        parser.error(problem)
    outputs: Path = options.outputs or outputs_root()
    if not (outputs / "artifacts").is_dir():
        print(
            f"qexp store: no store in {outputs}; a run makes one, or name other outputs with --outputs",
            file=sys.stderr,
        )
        return INVALID
    try:
        code: int = options.act(outputs, options)
    except (StoreError, OSError) as error:
        print(f"qexp store: {error}", file=sys.stderr)
        return FAILED
    return code


def list_items(outputs: Path, options: argparse.Namespace) -> int:
    """Print the content of the store: a line for each stage, or for each artifact."""
    stored, use_counts = list(items(outputs / "artifacts")), _uses(outputs)
    table = _by_item(stored, use_counts) if options.long else _by_stage(stored, use_counts)
    print_out(markdown(table))
    return 0


def verify(outputs: Path, options: argparse.Namespace) -> int:
    """Compare every artifact with its checksums; the exit code is 1 if any is damaged."""
    artifacts = [item for item in items(outputs / "artifacts") if item.kind == "artifact"]
    damaged = 0
    for item in artifacts:
        if (problem := problem_of(item.path)) is None:
            continue
        damaged += 1
        print_out(f"{item.stage}/{item.key} {problem}\n")
        if options.set_aside:
            item.path.rename(item.path.with_name(f"{item.key}.broken-{item.path.stat().st_mtime_ns}"))
    outcome = (
        "set aside, and built anew by the next run that needs them"
        if options.set_aside
        else "never used: the next run that needs one builds it anew"
    )
    print_out(f"{len(artifacts)} artifacts, {damaged} damaged{f' ({outcome})' if damaged else ''}\n")
    return FAILED if damaged else OK


def collect(outputs: Path, options: argparse.Namespace) -> int:
    """Remove incomplete and damaged folders and stale leases, and on request unused artifacts."""
    if options.unused and not options.dry_run and (runs := count_running(outputs)):
        print(
            f"--unused: {runs} runs go on, and may need what no Record names yet; wait for "
            "them, or leave out --unused",
            file=sys.stderr,
        )
        return INVALID
    use_counts = _uses(outputs) if options.unused else Counter()
    waste = [item for item in items(outputs / "artifacts") if _is_waste(item, use_counts, options)]
    sizes = [item.bytes for item in waste]
    if options.dry_run:
        print_out("".join(f"{item.stage}/{item.path.name}\n" for item in waste))
    removed = [True if options.dry_run else item.remove() for item in waste]
    counts = Counter(item.kind for item, was_removed in zip(waste, removed, strict=True) if was_removed)
    freed = sum(size for size, was_removed in zip(sizes, removed, strict=True) if was_removed)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing"
    print_out(f"{'would remove' if options.dry_run else 'removed'} {kinds}: {freed / MEBIBYTE:.1f} MiB\n")
    return 0


def _is_waste(item: Item, use_counts: Counter[tuple[str, str]], options: argparse.Namespace) -> bool:
    if item.days < options.older_than or item.is_in_use:
        return False
    return item.kind != "artifact" or (options.unused and not use_counts[item.stage, item.key])


def _uses(outputs: Path) -> Counter[tuple[str, str]]:
    folder = records_folder(outputs)
    records, unreadable = read_all(folder) if folder.is_dir() else ([], [])
    if unreadable:
        raise StoreError(
            f"{unreadable[0].path}: {unreadable[0].reason}; what it needs is not known: repair or delete it"
        )
    return uses(records)


def _by_stage(stored: Sequence[Item], use_counts: Counter[tuple[str, str]]) -> Table:
    rows = []
    for stage in dict.fromkeys(item.stage for item in stored):
        of_stage = [item for item in stored if item.stage == stage]
        artifacts = [item for item in of_stage if item.kind == "artifact"]
        rest = [item for item in of_stage if item.kind in ("work", "broken")]
        unused = [item for item in artifacts if not use_counts[item.stage, item.key]]
        sizes = [f"{sum(item.bytes for item in group) / MEBIBYTE:.1f}" for group in (artifacts, unused, rest)]
        counts = [str(len(group)) for group in (artifacts, unused, rest)]
        rows.append((stage, *(cell for pair in zip(counts, sizes, strict=True) for cell in pair)))
    columns = ("stage", "artifacts", "MiB", "in no Record", "MiB", "half-made or damaged", "MiB")
    return Table("store", columns, tuple(rows))


def _by_item(stored: Sequence[Item], use_counts: Counter[tuple[str, str]]) -> Table:
    rows = []
    for item in (item for item in stored if item.kind != "lease"):
        built = seconds = NOT_REQUESTED
        if item.kind == "artifact":
            try:
                manifest = item.manifest
                built = manifest.built or NOT_REQUESTED
                seconds = NOT_REQUESTED if manifest.seconds is None else f"{manifest.seconds:.1f}"
            except StoreError:
                built = "damaged"
        size = f"{item.bytes / MEBIBYTE:.2f}"
        rows.append((item.stage, item.path.name, size, built, seconds, str(use_counts[item.stage, item.key])))
    return Table("store", ("stage", "folder", "MiB", "built", "seconds", "Records"), tuple(rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qexp store",
        description="The store of artifacts: what lies there, whether it is sound, and what can go.",
    )
    add_outputs(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("ls", help="what lies in the store, by stage")
    listing.add_argument("--long", action="store_true", help="a line for each artifact")
    listing.set_defaults(act=list_items)
    checking = commands.add_parser("verify", help="hold every artifact against its checksums")
    checking.add_argument(
        "--set-aside", action="store_true", help="rename what is damaged, so that it is built anew"
    )
    checking.set_defaults(act=verify)
    collecting = commands.add_parser(
        "gc",
        help="remove what nobody needs",
        description="Removes what a killed process left half-made, what is damaged, and leases without "
        "a holder; never what a process has claimed.",
    )
    add_collect_options(collecting)
    collecting.set_defaults(act=collect)
    return parser


def add_collect_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`collect` reads."""
    parser.add_argument("--unused", action="store_true", help="also artifacts that no Record names")
    parser.add_argument(
        "--older-than", type=float, default=0.0, metavar="DAYS", help="only what was not changed for so long"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
