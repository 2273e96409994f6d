"""Draw a plan: a grid of stages and pipelines in the terminal, the same with links as an SVG file."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape

from assay.group.cost import CostTables
from assay.group.network import Cluster
from assay.group.plan import GroupPlan

# Distinct for the common kinds of colour blindness (Okabe and Ito 2008), then repeated.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")


def draw_text(plan: GroupPlan, cluster: Cluster, tables: CostTables, region: Mapping[str, str]) -> str:
    """One line a stage with its members' regions, the slowest hop to the next stage between; pipelines are columns."""
    index = {device.name: i for i, device in enumerate(cluster.devices)}
    width = min(12, max(len(region[name]) for name in plan.members) + 1)
    lines = []
    for s in range(plan.stages):
        cells = "".join(region[name][: width - 1].ljust(width) for name in plan.stage_members(s))
        layers = f"{plan.layers[s]} layer" + ("s" if plan.layers[s] != 1 else "")
        lines.append(f"stage {s:<3} {layers:<10} {cells}".rstrip())
        if s + 1 < plan.stages:
            hop = max(tables.round_trip[index[row[s]], index[row[s + 1]]] for row in plan.pipelines)
            lines.append(f"    | slowest pair {hop:.4g} s there and back")
    return "\n".join(lines)


def draw_svg(plan: GroupPlan, cluster: Cluster, tables: CostTables, region: Mapping[str, str]) -> str:
    """The plan as SVG: members coloured by region, hops drawn thicker the longer they take."""
    index = {device.name: i for i, device in enumerate(cluster.devices)}
    regions = sorted({region[name] for name in plan.members})
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(regions)}
    cell, box_width, box_height = (130, 90), 104, 34
    width, height = 90 + cell[0] * plan.replicas, 50 + cell[1] * plan.stages + 24 * ((len(regions) + 3) // 4)
    hops = [
        (r, s, float(tables.round_trip[index[row[s]], index[row[s + 1]]]))
        for r, row in enumerate(plan.pipelines)
        for s in range(plan.stages - 1)
    ]
    longest = max((seconds for _, _, seconds in hops), default=1.0) or 1.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for r, s, seconds in hops:
        x, y = 80 + cell[0] * r + box_width / 2, 20 + cell[1] * s + box_height
        parts.append(
            f'<line x1="{x}" y1="{y}" x2="{x}" y2="{y + cell[1] - box_height}" stroke="#555" '
            f'stroke-width="{1 + 7 * seconds / longest:.1f}"/>'
            f'<text x="{x + 8}" y="{y + 32}" fill="#333">{seconds:.3g} s</text>'
        )
    for s in range(plan.stages):
        parts.append(f'<text x="8" y="{42 + cell[1] * s}">stage {s}</text>')
        for r, name in enumerate(plan.stage_members(s)):
            x, y = 80 + cell[0] * r, 20 + cell[1] * s
            parts.append(
                f'<rect x="{x}" y="{y}" width="{box_width}" height="{box_height}" rx="6" '
                f'fill="{colour[region[name]]}" fill-opacity="0.35" stroke="{colour[region[name]]}"/>'
                f'<text x="{x + box_width / 2}" y="{y + 21}" text-anchor="middle">{escape(name[:16])}</text>'
            )
    for i, name in enumerate(regions):
        x, y = 80 + (i % 4) * 140, 40 + cell[1] * plan.stages + 24 * (i // 4)
        parts.append(
            f'<rect x="{x}" y="{y - 11}" width="14" height="14" fill="{colour[name]}" fill-opacity="0.5"/>'
            f'<text x="{x + 20}" y="{y}">{escape(name)}</text>'
        )
    parts.append("</svg>\n")
    return "\n".join(parts)
