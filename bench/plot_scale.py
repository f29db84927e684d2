#!/usr/bin/env python3
"""Draws docs/scale.svg from what grange_core_scale printed: plot_scale.py figures.csv docs/scale.svg"""

import csv
import math
import sys

WIDTH, HEIGHT, LEFT, TOP = 380, 240, 70, 50


def panel(x0, title, unit, points):
    """One curve on a logarithmic axis of `unit`."""
    low, high = math.log10(points[0][0]), math.log10(points[-1][0])
    top = max(y for _, y in points) * 1.15

    def place(x, y):
        return (x0 + (math.log10(x) - low) / (high - low) * WIDTH, TOP + HEIGHT - y / top * HEIGHT)

    out = [f'<text x="{x0}" y="{TOP - 16}" class="t">{title}</text>']
    step = 10 ** math.floor(math.log10(top))
    step = step / 2 if top / step < 3 else step
    y = 0.0
    while y <= top:
        _, py = place(points[0][0], y)
        out.append(f'<path d="M{x0} {py:.1f}h{WIDTH}" class="g"/>')
        out.append(f'<text x="{x0 - 6}" y="{py + 4:.1f}" text-anchor="end">{y / 1000:,.0f}k</text>')
        y += step
    for x, _ in points:
        px, _ = place(x, 0)
        out.append(f'<text x="{px:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{x:,}</text>')
    out.append(f'<text x="{x0 + WIDTH / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle">{unit}</text>')
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(x, v) for x, v in points))
    out.append(f'<polyline points="{line}" class="l"/>')
    for x, v in points:
        a, b = place(x, v)
        out.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>')
    return out


def main():
    source, target = sys.argv[1], sys.argv[2]
    with open(source, encoding="utf-8") as file:
        lines = file.read().splitlines()
    notes = [line[2:] for line in lines if line.startswith("# ")]
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))

    def curve(name, key):
        return [(int(r[key]), float(r["changes_per_core_second"])) for r in rows if r["curve"] == name]

    width, height = LEFT * 2 + WIDTH * 2 + 90, TOP + HEIGHT + 60 + 18 * len(notes)
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        "<style>text{font:12px sans-serif;fill:#333}.t{font-size:14px;font-weight:bold}.g{stroke:#ddd}"
        ".l{fill:none;stroke:#2c6e49;stroke-width:2}circle{fill:#2c6e49}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    svg += panel(LEFT, "State changes a second on one core", "workers", curve("workers", "workers"))
    svg += panel(LEFT + WIDTH + 90, "The same, 2,000 workers", "tasks", curve("tasks", "tasks"))
    for i, note in enumerate(notes):
        svg.append(f'<text x="{LEFT}" y="{TOP + HEIGHT + 62 + 18 * i}">{note}</text>')
    svg.append("</svg>")
    with open(target, "w", encoding="utf-8") as file:
        file.write("\n".join(svg) + "\n")


if __name__ == "__main__":
    main()
