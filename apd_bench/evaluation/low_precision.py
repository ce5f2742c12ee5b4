"""An attack in low precision, judged in float32; what float32 denies is attacked again on it.

Near a boundary the two disagree: the attack stops at a point that the full model still classifies correctly. Such
samples are attacked again, on the full model, so that no verdict rests on the rounding of the short one.
"""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from apd_bench.attacks.meter import Meter
from apd_bench.attacks.search import AttackResult


def confirmed(
    meter: Meter, result: AttackResult, labels: Tensor, again: Callable[[Tensor], AttackResult]
) -> AttackResult:
    """`result` [B] judged by the model of `meter`; what it denies is replaced by what `again(rows)` finds.

    `effective["attacked_again"]` counts the samples that were attacked a second time, where there were any.
    """
    if not len(labels):
        return result
    wrong = meter.predict(result.adversarials).argmax(1) != labels
    rows = (result.broken & ~wrong).nonzero().squeeze(1)
    result = replace(result, broken=wrong)
    if not len(rows):
        return result
    second = again(rows)
    counts = {name: value for name, value in second.diagnostics.items() if isinstance(value, int)}
    return replace(
        result,
        adversarials=_with(result.adversarials, rows, second.adversarials),
        broken=_with(wrong, rows, second.broken),
        forwards=result.forwards + second.forwards,
        backwards=result.backwards + second.backwards,
        effective={**result.effective, "attacked_again": len(rows)},
        diagnostics={**result.diagnostics, **{k: v + result.diagnostics.get(k, 0) for k, v in counts.items()}},
        columns={
            name: _with(column, rows, second.columns[name]) if name in second.columns else column
            for name, column in result.columns.items()
        },
    )


def _with(column: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """A copy of `column` with `values` at `rows`."""
    return column.index_copy(0, rows, values.to(column))
