"""How far a cell is, told while its attacks run: samples with a verdict, samples broken, image passes."""

from collections.abc import Callable

from apd_bench.attacks.meter import Meter

OnProgress = Callable[[int, int, int], None]


class Account:
    """Tells `on_progress(done, broken, passes)` whenever a meter asks for it; no number that it tells ever falls.

    A sample of the shard under way is done once it is misclassified by itself, broken by the attack on `judge`, or
    through the last member of a suite. What an `adversary` in short arithmetic or of another model claims to have
    broken counts after the audit alone.
    """

    def __init__(self, on_progress: OnProgress | None, judge: Meter, adversary: Meter) -> None:
        self._tell, self._judge, self._adversary = on_progress, judge, adversary
        self._done = self._lost = self._wrong = 0
        self._begun, self._told = False, (0, 0)
        self.stop: Exception | None = None  # what `on_progress` raised
        judge.on_step = adversary.on_step = None if on_progress is None else self._report

    def begin(self, wrong: int) -> None:
        """A shard begins, of which `wrong` samples are misclassified by themselves."""
        self._begun, self._wrong = True, wrong

    def finish(self, samples: int, broken: int) -> None:
        """A shard is through its audit: so many samples, of which the attack broke `broken`."""
        self._done += samples
        self._lost += self._wrong + broken
        self._begun, self._wrong = False, 0
        self._report()

    def _report(self, *_: int) -> None:
        if self._tell is None:
            return
        settled, broken = self._under_way()
        done, lost = self._done + self._wrong + settled, self._lost + self._wrong + broken
        self._told = max(self._told[0], done), max(self._told[1], lost)
        meters = {id(meter): meter for meter in (self._judge, self._adversary)}.values()
        try:
            self._tell(*self._told, sum(meter.forwards + meter.backwards for meter in meters))
        except Exception as error:
            self.stop = error
            raise

    def _under_way(self) -> tuple[int, int]:
        if not self._begun or self._adversary.tally is None:  # the attacks of the diagnostics do not count
            return 0, 0
        settled, broken = self._adversary.tally()
        return (settled, broken) if self._adversary is self._judge else (settled - broken, 0)
