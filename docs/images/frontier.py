"""Draw ``frontier.svg``: what each bit-width loses, against latency and against size.

Run ``python docs/images/frontier.py`` to draw ``frontier.json``. ``python docs/images/frontier.py OUTPUTS``
first makes that file of the Records in a folder of outputs, which the commands in it have written.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("frontier.json")
OUTPUT = Path(__file__).with_name("frontier.svg")

METRIC, SHAPE, MIB = "spearman", "1x128", 2**20
COLORS = {"onnxruntime": "#3b6ea5", "openvino": "#b3470b"}
TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
WIDTH, HEIGHT, PLOT, TOP, BOTTOM, LEFT = 880, 382, 350, 62, 280, 66
"""Size of the picture, width of a plot, and its edges, in pixels."""
LOSSES, ACCEPTED = (0, 0.5, 1, 1.5, 2), 0.5
"""Marks of the vertical axis, and the default of ``accept.loss``; more is drawn below the last mark."""
_ABOVE, _BELOW = (0, -11, "middle"), (0, 20, "middle")
BY_LATENCY = {
    "fp32": _BELOW,
    "w8a8": (-10, 4, "end"),
    "w4a8": _BELOW,
    "w3a8": _ABOVE,
    "w2a8": (-10, 4, "end"),
}
BY_SIZE = {
    "fp32": _BELOW,
    "w8a8": (10, 6, "start"),
    "w4a8": _BELOW,
    "w3a8": (10, 4, "start"),
    "w2a8": (10, 5, "start"),
}
"""Where the name of a bit-width stands beside its point in each plot."""
SHOWN = ("w8a8", "w4a8", "w3a8", "w2a8")


@dataclass(frozen=True)
class Point:
    """Engine of one run: what it loses, its share of FP32's latency, and the size of its file."""

    quant: str
    runtime: str
    loss: float
    latency: float
    """p50 over that of FP32 in ONNX Runtime, timed in turn in the same run."""
    mib: float


def points_of(records: Sequence[dict[str, Any]]) -> Iterator[Point]:
    """Yield the engines of all runs; FP32 is that of the first run."""
    for number, record in enumerate(records):
        engines = record["engines"]
        base = engines["onnxruntime/fp32"]
        for name, engine in engines.items():
            runtime, _, precision = name.partition("/")
            if precision == "fp32" and number > 0:
                continue
            yield Point(
                quant="fp32" if precision == "fp32" else record["labels"]["quant"].partition("-")[0],
                runtime=runtime,
                loss=round(record["scores"]["fp32"][METRIC] - engine["scores"][METRIC], 3),
                latency=round(engine["latency"][SHAPE]["p50_ms"] / base["latency"][SHAPE]["p50_ms"], 3),
                mib=round(engine["info"]["bytes"] / MIB, 1),
            )


def collect(outputs: Path) -> dict[str, Any]:
    """Return what is drawn, of the Records in a folder of outputs, with the commands that made them."""
    read = [json.loads(file.read_text(encoding="utf-8")) for file in (outputs / "records").glob("*.json")]
    read = [record for record in read if record["labels"]["quant"].partition("-")[0] in SHOWN]
    order = sorted(read, key=lambda record: -int(record["labels"]["quant"][1]))
    first = order[0]
    return {
        "title": "all-MiniLM-L6-v2 as it is published, PTQ without training, on the 1 500 pairs of STS-B",
        "made_by": [
            "python docs/images/frontier.py OUTPUTS, after, with QEXP_OUTPUTS=OUTPUTS:",
            *(f"python -m qexp {shlex.join(record['overrides'])}" for record in order),
        ],
        "processor": "x86 with AVX512-VNNI, 1 thread; other work ran on the machine",
        "versions": {**first["versions"], "runtimes": first["host"]["runtimes"]},
        "points": [asdict(point) for point in points_of(order)],
    }


def text(x: float, y: float, words: str, style: str = "") -> str:
    """Return words at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{words}</text>'


def height_of(loss: float) -> float:
    """Return the vertical place of a loss: no loss is at the top."""
    return TOP + (BOTTOM - TOP) * min(max(loss, 0) / LOSSES[-1], 1.055)


def axes(left: float, label: str, marks: dict[float, str]) -> Iterator[str]:
    """Yield grid, marks and name of the horizontal axis of one plot; marks are at shares of its width."""
    for loss in LOSSES:
        y = height_of(loss)
        dashes = 'stroke="#2e7d32" stroke-dasharray="5 4"' if loss == ACCEPTED else 'stroke="#e3e3e3"'
        yield f'<line x1="{left}" x2="{left + PLOT}" y1="{y:.1f}" y2="{y:.1f}" {dashes}/>'
        yield text(left - 8, y + 4, f"{-loss:g}" if loss else "0", 'text-anchor="end" fill="#555"')
    accepted = height_of(ACCEPTED) - 6
    yield text(left + PLOT, accepted, "accept.loss", 'text-anchor="end" fill="#2e7d32"')
    for share, words in marks.items():
        yield text(left + PLOT * share, BOTTOM + 36, words, 'text-anchor="middle" fill="#555"')
    yield text(left + PLOT / 2, BOTTOM + 56, label, 'text-anchor="middle" fill="#222"')


def dot(x: float, point: Point) -> str:
    """Return the mark of a point, hollow if its weights are widened for the product."""
    color = COLORS[point.runtime]
    fill = color if point.quant in ("fp32", "w8a8") else "#ffffff"
    about = f"{point.quant} in {TITLES[point.runtime]}: {-point.loss:+.2f} points, {point.mib} MiB"
    return (
        f'<circle cx="{x:.1f}" cy="{height_of(point.loss):.1f}" r="5" fill="{fill}" stroke="{color}" '
        f'stroke-width="2"><title>{about}</title></circle>'
    )


def plot(
    left: float,
    points: Sequence[Point],
    place: Callable[[Point], float],
    labels: dict[str, tuple[float, float, str]],
) -> Iterator[str]:
    """Yield the points of one plot; ``place`` is a share of its width, a label an offset and an anchor."""
    named = set[str]()
    for point in sorted(points, key=place):
        x = left + PLOT * place(point)
        yield dot(x, point)
        if point.quant not in named:
            named.add(point.quant)
            right, down, anchor = labels[point.quant]
            below = f" ({-point.loss:.1f})" if point.loss > LOSSES[-1] else ""
            style = f'text-anchor="{anchor}" fill="#222" font-weight="bold"'
            yield text(x + right, height_of(point.loss) + down, f"{point.quant.upper()}{below}", style)


def draw(data: dict[str, Any]) -> str:
    """Return the picture, on a white background so that dark pages can show it, too."""
    points = [Point(**each) for each in data["points"]]
    largest = max(point.mib for point in points) * 1.1
    second = LEFT + PLOT + 86
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="Helvetica, Arial, sans-serif" font-size="12">',
        f"<title>Loss against latency and size: {data['title']}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(LEFT, 20, data["title"], 'fill="#222" font-size="14" font-weight="bold"'),
        text(LEFT, 40, "Spearman, points below FP32; further left and further up is better", 'fill="#555"'),
        *axes(LEFT, "latency of one text of 128 tokens, % of FP32 in ONNX Runtime",
              {share / 1.2: f"{share:.0%}" for share in (0, 0.25, 0.5, 0.75, 1)}),
        *plot(LEFT, points, lambda point: point.latency / 1.2, BY_LATENCY),
        *axes(second, "size of the ONNX file, MiB", {mib / largest: f"{mib}" for mib in (0, 20, 40, 60, 80)}),
        *plot(second, [each for each in points if each.runtime == "onnxruntime"],
              lambda point: point.mib / largest, BY_SIZE),
    ]  # fmt: skip
    x = LEFT
    for name, color in COLORS.items():
        parts += [
            f'<circle cx="{x + 5}" cy="{HEIGHT - 18}" r="5" fill="{color}"/>',
            text(x + 16, HEIGHT - 14, TITLES[name], 'fill="#222"'),
        ]
        x += 120
    parts.append(
        text(
            x + 10,
            HEIGHT - 14,
            "hollow: weights of fewer than 8 bits, multiplied as 8-bit integers",
            'fill="#555"',
        )
    )
    return "\n".join([*parts, "</svg>", ""])


def main(arguments: Sequence[str]) -> None:
    """Write the picture, and the data first if a folder of outputs is named."""
    for outputs in arguments:
        data = collect(Path(outputs))
        DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    OUTPUT.write_text(draw(json.loads(DATA.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
