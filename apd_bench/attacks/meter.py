"""The model as an attack sees it: float32 contiguous logits, gradients for the pixels alone, every pass counted.

Own attacks call `predict` and `gradient`. Libraries call the meter itself, like a model: their `backward()` ends at the
pixels and never writes a `.grad` into the model.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from apd_bench.attacks.inputs import check_logits

Model = Callable[[Tensor], Tensor]
OnStep = Callable[[int, int], None]
_REPORT_EVERY = 0.1  # seconds between two calls of `on_step`


class Meter:
    """Counts the image passes through `model` and the seconds spent in them.

    `forwards` and `backwards` count images, `seconds` is the time inside the model, `batch_size` the largest batch the
    model may be given (None: any), `on_step(forwards, backwards)` is called between passes and may raise to stop.
    `persist` keeps broken samples in the search: examples for another model should not stop at this one's boundary.
    `on_phase(text)` is told by a suite which member runs.
    `tally`, set by an attack while it runs, tells how many of its samples are settled and how many of these are broken.
    Flat and non-finite gradients are counted on the device and read when asked for: no step waits for their number.
    """

    def __init__(self, model: Model, *, batch_size: int | None = None, persist: bool = False) -> None:
        self.model = model
        self.batch_size = batch_size
        self.on_step: OnStep | None = None
        self.on_phase: Callable[[str], None] = lambda text: None
        self.persist = persist
        self.tally: Callable[[], tuple[int, int]] | None = None
        self.forwards = 0
        self.backwards = 0
        self.num_classes = 0
        self._cut = 0
        self._flaws: Tensor | None = None
        self._clock = _Clock()
        self._reported = time.perf_counter()

    @classmethod
    def of(cls, model: "Model | Meter") -> "Meter":
        """`model` itself when it is a meter already, else a new meter around it."""
        return model if isinstance(model, Meter) else cls(model)

    def beside(self, model: Model, *, batch_size: int | None) -> "Meter":
        """A meter around another model that goes by the same clock and tells the same progress."""
        other = type(self)(model, batch_size=batch_size)
        other.on_step, other._clock = self.on_step, self._clock
        return other

    @property
    def zero_gradients(self) -> int:
        """Gradients so far, per image, that were exactly zero or that a model had cut; waits for the device."""
        return self._cut + (0 if self._flaws is None else int(self._flaws[0]))

    @property
    def bad_gradients(self) -> int:
        """Gradients so far, per image, with NaN or infinite entries; waits for the device."""
        return 0 if self._flaws is None else int(self._flaws[1])

    @property
    def seconds(self) -> float:
        """Seconds spent inside the model's forward and backward passes so far."""
        return self._clock.total()

    def predict(self, x: Tensor) -> Tensor:
        """Logits [B, K] of x [B, 3, H, W] without a graph, in batches of at most `batch_size`."""
        with torch.no_grad():
            if self.batch_size is None or len(x) <= self.batch_size:
                return self._forward(x)
            size = self.batch_size
            return torch.cat([self._forward(x[low : low + size]) for low in range(0, len(x), size)])

    def gradient(self, x: Tensor, loss: Callable[..., Tensor], *columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [B, K], `loss(logits, *columns)` [B] and the gradient [B, 3, H, W] of its sum with respect to x.

        More than `batch_size` images are taken in parts, with the same rows of the `columns` (labels, say). A model
        that cuts the graph gives zeros; non-finite entries are set to zero. Both are counted per image.
        """
        size = self.batch_size or len(x)
        if len(x) > size:
            cuts = [slice(low, low + size) for low in range(0, len(x), size)]
            parts = [self.gradient(x[cut], loss, *(column[cut] for column in columns)) for cut in cuts]
            z, f, g = (torch.cat(part) for part in zip(*parts, strict=True))
            return z, f, g
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            z = self._forward(x)
            f = loss(z, *columns)
            value = f.sum()
        if not value.requires_grad:
            self._cut += len(x)
            self.backwards += len(x)
            return z.detach(), f.detach(), torch.zeros_like(x)
        with self._clock:
            (g,) = torch.autograd.grad(value, x, materialize_grads=True)
        self.backwards += len(x)
        return z.detach(), f.detach(), self._inspect(g)

    def __call__(self, x: Tensor) -> Tensor:
        """Logits for a library's attack, differentiable with respect to x where x asks for it."""
        if torch.is_grad_enabled() and x.requires_grad:
            logits: Tensor = _Pass.apply(x, self)
            return logits
        return self.predict(x).clone()

    def _forward(self, x: Tensor) -> Tensor:
        with self._clock:
            z = self.model(x)
        self.forwards += len(x)
        if not self.num_classes or not isinstance(z, Tensor) or z.shape != (len(x), self.num_classes):
            self.num_classes = check_logits(z, len(x), expected=self.num_classes)
        if self.on_step is not None and time.perf_counter() - self._reported > _REPORT_EVERY:
            self._reported = time.perf_counter()
            self.on_step(self.forwards, self.backwards)
        return z.float().contiguous()

    def _inspect(self, g: Tensor) -> Tensor:
        """The gradient with 0 for entries that are not finite, counted without waiting for the device; g is used up."""
        g = g.contiguous()
        flat = g.flatten(1)
        peak = torch.maximum(flat.amax(1), -flat.amin(1))  # NaN stays NaN
        flaws = torch.stack([(peak == 0).sum(), (~peak.isfinite()).sum()])
        self._flaws = flaws if self._flaws is None else self._flaws + flaws
        return g.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


class _Pass(torch.autograd.Function):
    """A pass through the model whose backward asks for the gradient of the pixels and of nothing else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, meter: Meter) -> Tensor:
        with torch.enable_grad():
            ctx.leaf = x.detach().requires_grad_()
            logits = meter._forward(ctx.leaf)
        ctx.logits, ctx.meter = logits, meter
        return logits.detach().clone()

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        meter: Meter = ctx.meter
        meter.backwards += len(ctx.leaf)
        if not ctx.logits.requires_grad:
            meter._cut += len(ctx.leaf)
            return torch.zeros_like(ctx.leaf), None
        with meter._clock:  # FAB goes backwards through one pass several times
            (g,) = torch.autograd.grad(ctx.logits, ctx.leaf, grad[0], retain_graph=True, materialize_grads=True)
        return meter._inspect(g), None


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class _Clock:
    """Adds up the seconds inside `with` blocks: on the CPU by its clock, on CUDA by events, without waiting."""

    def __init__(self) -> None:
        self._cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self._seconds = 0.0
        self._began = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __enter__(self) -> None:
        if self._cuda:
            pair = (_event(), _event())
            pair[0].record()
            self._events.append(pair)
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if not self._cuda:
            self._seconds += time.perf_counter() - self._began
            return
        self._events[-1][1].record()
        if len(self._events) >= 1024:
            self.total()

    def total(self) -> float:
        """Seconds so far; waits for the device."""
        if self._events:
            self._events[-1][1].synchronize()
            self._seconds += sum(start.elapsed_time(end) for start, end in self._events) / 1000
            self._events.clear()
        return self._seconds
