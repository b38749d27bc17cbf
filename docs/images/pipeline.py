"""Draw ``pipeline.svg``: the stages of a run, and which artifacts each of them reads.

Run ``python docs/images/pipeline.py``. Boxes and arrows follow from the stage modules: ``STAGE.keys`` names
the inputs, and the annotations of ``run`` their types. An input whose type is an artifact class is an arrow.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = Path(__file__).with_name("pipeline.svg")

OPTIONAL = ("equalize", "moments", "refine", "control", "qat", "convert_fp16")
"""Modules of the stages that a run includes only with a refinement, a training method or FP16 engines."""
COLORS = ("#3b6ea5", "#2c2c2c", "#8a5a00", "#6b4fa0", "#a8325e", "#2e7d32", "#b3470b", "#00707c")
"""Colors of the artifact classes, all dark enough for text on white."""
LEGEND = (
    "box: stage, with its module in qexp/pipeline/stages",
    "line: artifact class, read by the stages that its arrows point to",
    "dashed box: only with a refinement, method=control or qat, or FP16 engines",
    "dashed arrow: an input that may be None",
)

COLUMN, BOX, MARGIN = 82, 76, 24
"""Horizontal distance of the boxes, their width, and the space around the picture, in pixels."""
TOP, HEIGHT, LANE = 20, 44, 30
"""Upper edge and height of the boxes, and the vertical distance of the lines."""


@dataclass(frozen=True)
class Box:
    """One stage: its module, its name in the store, and the artifact classes that it makes and reads."""

    module: str
    name: str
    product: type
    reads: dict[type, bool]
    """Artifact classes among the inputs, and whether each may be None."""


@dataclass(frozen=True)
class Port:
    """Connection of a box to the line of an artifact class."""

    x: float
    is_input: bool
    may_be_none: bool = False


def stage_boxes() -> list[Box]:
    """Return the stages from left to right: by the number in their names, producers before readers."""
    sys.path.insert(0, str(ROOT))
    names: Any = import_module("qexp.naming").StageName
    order = [value for name, value in vars(names).items() if name.isupper()]
    folder = ROOT / "qexp" / "pipeline" / "stages"
    waiting = [_box(file.stem) for file in folder.glob("[!_]*.py")]
    waiting.sort(key=lambda box: (box.name[0], order.index(box.name)))
    boxes: list[Box] = []
    while waiting:
        group = [box for box in waiting if box.name[0] == waiting[0].name[0]]
        ready = next((box for box in group if not _waits(box, group)), group[0])
        waiting.remove(ready)
        boxes.append(ready)
    return boxes


def _box(module: str) -> Box:
    artifact: type = import_module("qexp.artifacts.types").Artifact
    stage: Any = import_module(f"qexp.pipeline.stages.{module}").STAGE
    hints = get_type_hints(stage.run)
    reads: dict[type, bool] = {}
    for name in stage.keys:
        members = get_args(hints[name]) or (hints[name],)
        for member in members:
            if isinstance(member, type) and issubclass(member, artifact):
                reads[member] = reads.get(member, True) and type(None) in members
    return Box(module, stage.name, stage.artifact, reads)


def _waits(box: Box, group: Sequence[Box]) -> bool:
    """Return whether the box reads what another of the group makes, and not the other way round."""
    return any(_feeds(other, box) and not _feeds(box, other) for other in group if other is not box)


def _feeds(maker: Box, reader: Box) -> bool:
    return any(issubclass(maker.product, read) for read in reader.reads)


def ports_of(boxes: Sequence[Box]) -> dict[type, list[Port]]:
    """Return the connections of each artifact class, in the order in which the classes first appear."""
    lanes: dict[type, list[Port]] = {}
    for column, box in enumerate(boxes):
        read_later = {read for later in boxes[column + 1 :] for read in later.reads}
        made = [box.product] if box.product in read_later else [
            read for read in lanes if issubclass(box.product, read) and read in read_later
        ]  # fmt: skip
        total = len(box.reads) + len(made)
        places = iter(_x(column) + BOX * (place + 1) / (total + 1) for place in range(total))
        for read, may_be_none in box.reads.items():
            lanes.setdefault(read, []).append(Port(next(places), True, may_be_none))
        for product in made:
            lanes.setdefault(product, []).append(Port(next(places), False))
    return lanes


def _x(column: int) -> float:
    return 2 * MARGIN + column * COLUMN


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" {style}>{text}</text>'


def _line(start: tuple[float, float], end: tuple[float, float], style: str) -> str:
    return f'<line x1="{start[0]:g}" y1="{start[1]:g}" x2="{end[0]:g}" y2="{end[1]:g}" {style}/>'


def draw_lane(lane: int, artifact: type, ports: Sequence[Port]) -> Iterator[str]:
    """Yield the line of an artifact class, its name, and its connections to the boxes."""
    y, bottom, color = TOP + HEIGHT + LANE * (lane + 1), TOP + HEIGHT, COLORS[lane % len(COLORS)]
    stroke = f'stroke="{color}" stroke-width="1.5"'
    yield _line((ports[0].x, y), (ports[-1].x, y), stroke)
    yield _text(ports[0].x - 8, y + 4, artifact.__name__, f'text-anchor="end" fill="{color}"')
    for port in ports:
        dashes = ' stroke-dasharray="4 3"' if port.may_be_none else ""
        yield _line((port.x, y), (port.x, bottom + 6 * port.is_input), stroke + dashes)
        yield f'<circle cx="{port.x:g}" cy="{y:g}" r="3" fill="{color}"/>'
        if port.is_input:
            tip = f"{port.x - 4:g},{bottom + 9} {port.x + 4:g},{bottom + 9} {port.x:g},{bottom + 1}"
            yield f'<polygon points="{tip}" fill="{color}"/>'


def draw_box(column: int, box: Box) -> Iterator[str]:
    """Yield the box of a stage: its name in the store above its module."""
    x, dashes = _x(column), ' stroke-dasharray="5 3"' if box.module in OPTIONAL else ""
    yield (
        f'<rect x="{x:g}" y="{TOP}" width="{BOX}" height="{HEIGHT}" rx="5" fill="#f4f6f8" '
        f'stroke="#444444"{dashes}/>'
    )
    yield _text(x + BOX / 2, TOP + 18, box.name, 'text-anchor="middle" fill="#111111" font-size="11.5"')
    yield _text(x + BOX / 2, TOP + 34, box.module, 'text-anchor="middle" fill="#555555" font-size="9.5"')


def draw(boxes: Sequence[Box], lanes: dict[type, list[Port]]) -> str:
    """Return the picture as SVG, on a white background so that dark pages can show it, too."""
    width = _x(len(boxes)) + MARGIN - (COLUMN - BOX)
    height = TOP + HEIGHT + LANE * (len(lanes) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="Helvetica, Arial, sans-serif" font-size="12">',
        "<title>Stages of a run and the artifacts that they read</title>",
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
    ]
    for lane, (artifact, ports) in enumerate(lanes.items()):
        parts += draw_lane(lane, artifact, ports)
    for column, box in enumerate(boxes):
        parts += draw_box(column, box)
    first = height - 18 * len(LEGEND)
    parts += [
        _text(2 * MARGIN, first + 18 * row, text, 'fill="#555555" font-size="11"')
        for row, text in enumerate(LEGEND)
    ]
    return "\n".join([*parts, "</svg>", ""])


def picture() -> str:
    """Return the picture of the stages as the code has them now."""
    boxes = stage_boxes()
    return draw(boxes, ports_of(boxes))


def main() -> None:
    """Write the picture beside this script."""
    OUTPUT.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
