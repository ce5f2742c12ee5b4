"""Fits and cells as array jobs of Slurm, through submitit; imports no torch.

The driver on the login node is the only writer of the store. A job leaves its result as data in the checkpoint folder
of its cell, where the driver takes it from. A driver that is gone (logout, a crash) leaves its jobs working: the same
command takes over what they did and those that still wait or work, and submits the rest. Login node and compute nodes
share the disk of the results.
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import submitit

from apd_bench.core.errors import MissingPrerequisite, UsageError, first_line
from apd_bench.core.files import atomic_write
from apd_bench.core.options import RunOptions
from apd_bench.records.measured import Measured
from apd_bench.runner.executor import at_most_every, guarded, make_workbench
from apd_bench.runner.shards import load_shard, save_shard
from apd_bench.runner.tasks import Failure, FitDone, Interrupted, Progress, Result, Settings, Stopped, Task

SLOTS = 256  # tasks that wait or work at a time, without --jobs
_POLL = 2.0  # seconds between two looks at the folders of jobs, and between two reports of a job
_LOOK = 30.0  # seconds between two looks at Slurm's list of jobs
_OURS = ("array", "output", "error", "open-mode", "signal")  # options of sbatch that the run itself writes
_TIME = re.compile(r"(?:(?P<d>\d+)-)?(?P<a>\d+)(?::(?P<b>\d+))?(?::(?P<c>\d+))?")


class SlurmExecutor:
    """Tasks as array jobs: what becomes ready at the same time is one array.

    `sbatch`: options of sbatch by their long names.
    """

    def __init__(
        self,
        settings: Settings,
        sbatch: Mapping[str, str],
        *,
        jobs: int | None = None,
        poll: float = _POLL,
        look: float = _LOOK,
    ) -> None:
        self.slots = jobs or SLOTS
        self._settings, self._poll, self._look = settings, poll, look
        self._folder = Path(settings.checkpoints).parent / "slurm"
        self._asked_to_stop = self._folder / "stop"
        self._asked_to_stop.unlink(missing_ok=True)
        self._waiting: list[_Held] = []
        self._held: dict[str, _Held] = {}
        self._last_poll = self._last_look = float("-inf")
        self._executor = self._make(sbatch)

    def submit(self, task: Task) -> Future[Result]:
        """Takes over the job of an earlier run that has this task, or notes the task for the next array job."""
        place = Path(self._settings.checkpoints) / task.id.partition(".")[0]
        mark = f"job-{task.id.partition('.')[2] or 'whole'}-"
        held = _Held(task, place / (mark + uuid4().hex[:8]))
        for folder in sorted(place.glob(mark + "*")):
            with suppress(OSError):
                held.folder, job_id = folder, (folder / "job").read_text().strip()
                held.job = submitit.SlurmJob(self._folder, job_id, [0])
        self._held[task.id] = held
        if held.job is None:
            self._waiting.append(held)
        return held.future

    def progress(self) -> Mapping[str, Progress]:
        """How far the tasks are; at this call, jobs are submitted and looked after. Raises MissingPrerequisite."""
        now = time.monotonic()
        if now - self._last_poll >= self._poll:
            self._last_poll = now
            self._submit_waiting()
            self._take_results()
        return {task_id: held.progress for task_id, held in self._held.items()}

    def stop(self) -> None:
        atomic_write(self._asked_to_stop, b"")
        waiting, self._waiting = self._waiting, []
        for held in [held for held in self._held.values() if held in waiting or not held.started]:
            held.cancel()
            self._finish(held, Stopped())

    def close(self, *, kill: bool = False) -> None:
        """Forgets the jobs, and with `kill` cancels them first."""
        for held in list(self._held.values()) if kill else ():
            held.cancel()
            shutil.rmtree(held.folder, ignore_errors=True)
        self._held.clear()

    def _make(self, sbatch: Mapping[str, str]) -> Any:
        for program in ("sbatch", "srun", "squeue"):
            if shutil.which(program) is None:
                raise MissingPrerequisite(
                    f"--executor slurm needs Slurm's '{program}', which is not here.", hint="Run this on a login node."
                )
        executor = submitit.SlurmExecutor(self._folder)
        executor.update_parameters(
            job_name="apd-bench",
            time=minutes(sbatch.get("time")),
            array_parallelism=self.slots,
            additional_parameters={name.replace("-", "_"): value for name, value in sbatch.items()},
        )
        return executor

    def _submit_waiting(self) -> None:
        if not self._waiting:
            return
        work = [Work(held.task, self._settings, str(held.folder), self._poll) for held in self._waiting]
        for held in self._waiting:
            held.folder.mkdir(parents=True)
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(item) for item in work]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
            raise MissingPrerequisite(
                f"Slurm refused the jobs: {_why(error)}.", hint="Mend --slurm KEY=VALUE,... and run it again."
            ) from error
        for held, job in zip(self._waiting, jobs, strict=True):
            held.job = job
            atomic_write(held.folder / "job", str(job.job_id).encode())
        self._waiting = []

    def _take_results(self) -> None:
        for held in list(self._held.values()):
            held.read_progress()
            result = read_result(held.folder)
            if result is not None:
                self._finish(held, result)
        now = time.monotonic()
        if self._held and now - self._last_look >= self._look:
            self._last_look = now
            alive = self._alive()
            for held in list(self._held.values()) if alive is not None else ():
                held.missed = 0 if held.job is None or held.job.job_id in (alive or ()) else held.missed + 1
                if held.missed > 1:  # twice: a result needs a moment to be seen on a shared disk
                    self._finish(held, held.lost())

    def _alive(self) -> set[str] | None:
        """The jobs that wait or work; None when Slurm does not answer."""
        command = ["squeue", "--noheader", "--array", "--format=%i", "--me"]
        with suppress(OSError, subprocess.SubprocessError):
            return set(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split())  # noqa: S603
        return None

    def _finish(self, held: "_Held", result: Result) -> None:
        del self._held[held.task.id]
        shutil.rmtree(held.folder, ignore_errors=True)
        with suppress(OSError):
            held.folder.parent.rmdir()  # of a fit: nothing else is in it
        held.future.set_result(result)


class _Held:
    """A task, its job once there is one, and the folder in which they meet."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task, self.folder = task, folder
        self.job: Any = None
        self.future: Future[Result] = Future()
        self.progress = Progress()
        self.missed = 0

    @property
    def started(self) -> bool:
        return (self.folder / "progress").exists()

    def read_progress(self) -> None:
        with suppress(OSError, ValueError, TypeError):
            self.progress = Progress(*json.loads((self.folder / "progress").read_bytes()))

    def cancel(self) -> None:
        if self.job is not None:
            with suppress(OSError, subprocess.SubprocessError):
                self.job.cancel(check=False)

    def lost(self) -> Failure:
        message = f"Slurm's job {self.job.job_id} ended without a result (state {self.job.state})"
        hint = f"See {self.job.paths.stderr}; mend --slurm (time, mem), then run with --failed."
        return Failure(type="JobLost", message=message, hint=hint)


def executor_for(settings: Settings, options: RunOptions, work: int) -> SlurmExecutor:
    """The executor that `--executor slurm` asks for."""
    settings = replace(settings, threads=1 if settings.threads == 1 else None)  # not this machine's cores
    return SlurmExecutor(settings, sbatch_options(options.slurm), jobs=options.jobs)


def sbatch_options(texts: Sequence[str]) -> dict[str, str]:
    """The options of sbatch in texts such as "partition=gpu,gres=gpu:1,time=4:00:00"; commas in values stay."""
    options: dict[str, str] = {}
    for item in (item for text in texts for item in re.split(r",\s*(?=[\w-]+=)", text)):
        name, equals, value = item.strip().removeprefix("--").partition("=")
        if not equals or not value.strip() or not re.fullmatch(r"[\w-]+", name) or not value.isprintable():
            raise UsageError(
                f"--slurm takes KEY=VALUE, not '{item}'.", hint="Write --slurm partition=gpu,time=4:00:00."
            )
        if name in _OURS:
            raise UsageError(f"'{name}' of sbatch is written by the run itself.", hint=f"Leave {name}= out of --slurm.")
        options[name] = value.strip()
    return options


def minutes(limit: str | None) -> int:
    """A time limit as Slurm writes it (minutes, m:s, h:m:s, d-h, d-h:m, d-h:m:s), in whole minutes, at least 1."""
    match = _TIME.fullmatch(limit or "")
    if match is None:
        raise UsageError(
            f"The time limit of the jobs is {f'{limit!r}, which' if limit else 'missing: it'} is needed as Slurm "
            "writes it.",
            hint="Write --slurm time=4:00:00.",
        )
    first, second = int(match["a"]), int(match["b"] or 0)
    if match["d"] is not None:
        return max(int(match["d"]) * 1440 + first * 60 + second, 1)
    return max(first * 60 + second if match["c"] is not None else first, 1)


def _why(error: BaseException) -> str:
    """What sbatch said, in one line."""
    said = [line.strip() for line in str(error).splitlines() if "sbatch: error" in line]
    return (said[-1].partition("error:")[2].strip() if said else first_line(error)).rstrip(".")


# ------------------------------------------------------------------ inside a job


@dataclass(frozen=True)
class Work:
    """What a job does. Slurm's time limit and preemption put it back into the queue, from where it goes on."""

    task: Task
    settings: Settings
    folder: str
    every: float = _POLL

    def __call__(self) -> None:
        """Carries the task out and leaves its result in the folder."""
        from apd_bench.runner.session import pick_device

        folder, asked_to_stop = Path(self.folder), Path(self.settings.checkpoints).parent / "slurm" / "stop"

        def report(progress: Progress) -> None:
            if asked_to_stop.exists() or not folder.is_dir():
                raise Interrupted
            atomic_write(folder / "progress", json.dumps(astuple(progress)).encode(), durable=False)

        watch = at_most_every(self.every, report)
        try:
            watch(Progress())
            device = pick_device(None) if self.settings.device == "auto" else self.settings.device
            bench = make_workbench(replace(self.settings, device=device))
            result = guarded(bench, self.task, watch)
            bench.close()
        except Interrupted:
            result = Stopped()
        except Exception as error:
            result = Failure.of(error)
        if folder.is_dir():  # else the driver no longer wants it
            write_result(folder, result)

    def checkpoint(self) -> Any:
        """The same work again: attacks go on from their own checkpoints."""
        return submitit.helpers.DelayedSubmission(self)


def write_result(folder: Path, result: Result) -> None:
    """Writes a result as data into a folder; `result.json` comes last."""
    facts: dict[str, Any] = {"kind": type(result).__name__}
    if isinstance(result, Measured):
        save_shard(folder, (0, 1), result)
    elif isinstance(result, FitDone):
        for name, content in result.files.items():
            atomic_write(folder / "fit" / name, content)
        facts |= {"files": sorted(result.files), "card": dict(result.card)}
    elif isinstance(result, Failure):
        facts |= {"failure": asdict(result)}
    atomic_write(folder / "result.json", json.dumps(facts).encode())


def read_result(folder: Path) -> Result | None:
    """The result in a folder; None when there is none that can be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        facts = json.loads((folder / "result.json").read_bytes())
        if facts["kind"] == "Measured":
            return load_shard(folder, (0, 1))
        if facts["kind"] == "FitDone":
            files = {name: (folder / "fit" / Path(name).name).read_bytes() for name in facts["files"]}
            return FitDone(files=files, card=facts["card"])
        return Failure(**facts["failure"]) if facts["kind"] == "Failure" else Stopped()
    return None
