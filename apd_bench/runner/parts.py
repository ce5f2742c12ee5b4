"""A plan dealt into parts that run apart, each into a folder of its own: the same parts wherever the plan is dealt.

What shares a fit that trains stays in one part, so that no fit is trained twice. Only where there are fewer such groups
than parts, the costliest is split, and its fit is trained in both.
"""

from collections.abc import Iterable
from dataclasses import replace

from apd_bench.core.specs import Cell
from apd_bench.runner.estimate import cost_of
from apd_bench.runner.plan import Plan, fits_of


def deal(plan: Plan, part: int, parts: int) -> Plan:
    """Part `part`, from 1 to `parts`, of a plan: the costliest group goes to the part that has least, and so on."""
    groups = _groups(plan.cells)
    while len(groups) < parts and any(len(group) > 1 for group in groups):
        largest = max((group for group in groups if len(group) > 1), key=_cost)
        groups.remove(largest)
        groups += [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
    costs = [0.0] * parts
    mine: set[str] = set()
    for group in sorted(groups, key=lambda group: (-_cost(group), group[0].id)):
        place = costs.index(min(costs))
        costs[place] += _cost(group)
        if place == part - 1:
            mine |= {cell.id for cell in group}
    return replace(plan, cells=tuple(cell for cell in plan.cells if cell.id in mine))


def _groups(cells: Iterable[Cell]) -> list[list[Cell]]:
    """The cells, together where a fit that trains joins them."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        keys = [fit.id for fit in fits_of(cell) if fit.method.trains] or [cell.id]
        group = groups.setdefault(keys[0], [])
        for other in [groups[key] for key in keys[1:] if key in groups and groups[key] is not group]:
            group += other
            groups |= {key: group for key, held in groups.items() if held is other}
        groups |= dict.fromkeys(keys, group)
        group.append(cell)
    return list({id(group): group for group in groups.values()}.values())


def _cost(group: Iterable[Cell]) -> float:
    fits = {fit.id: fit for cell in group for fit in fits_of(cell)}
    return sum(map(cost_of, group)) + sum(map(cost_of, fits.values()))
