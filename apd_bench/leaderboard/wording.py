"""What every format says in the same words: titles, headings, protocol, provenance, notes, legend. Plain text."""

from collections.abc import Sequence

from apd_bench.core.specs import ATTACK_SEED, SPACE, ThreatModel, format_eps
from apd_bench.leaderboard.columns import legend
from apd_bench.leaderboard.model import Table
from apd_bench.leaderboard.statistics import LEVEL

EMBEDDED_WARNING = (
    "This is the embedded suite: a tiny CLIP (about 2 million parameters, 40 px) on small image sets inside the "
    "package. Its numbers are not those of CLIP ViT-B and cannot be compared with published ones."
)


ACCURACIES = (
    "Accuracies are percent of test samples classified correctly, each a mean over datasets of a mean over seeds and "
    "samples. Threat models, budgets and backbones are never mixed in one table."
)


def board_title(tables: Sequence[Table], group: str) -> str:
    """The heading of a board's page."""
    if group == "embedded" or all(table.embedded for table in tables):
        return "apd-bench: embedded suite (tiny CLIP, not ViT-B)"
    return f"apd-bench: {group}"


def heading(*tables: Table) -> str:
    """Task, backbone, budget and shots in one line; of several tables all budgets, and else what they share."""
    key = tables[0].key
    robust = " (adversarially fine-tuned)" if key.training == "robust" else ""
    shots = f", {key.shots} shots" if key.shots > 0 else ", all images" if key.shots < 0 else ""
    half = f", {key.classes} classes"
    same_shots = len({table.key.shots for table in tables}) == 1
    same_half = len({table.key.classes for table in tables}) == 1
    task = {"base_to_new": f"Base-to-new{half if same_half else ''}: ", "cross_dataset": "Cross-dataset: "}
    threat = key.threat.label_with(*(table.key.threat.eps for table in tables))
    origin = f" of {key.trained_on}" if key.trained_on else ""
    place = f"{task.get(key.task, '')}{key.backbone}{robust}"
    return f"{place}, {threat}{shots if same_shots else ''}{origin}{_further(tables[0])}"


def _further(table: Table) -> str:
    """What tells a table of further datasets from the one that most methods are in."""
    if not table.further:
        return ""
    named = ", ".join(table.datasets[:3])
    return f", further sets: {named}" + (f" and {len(table.datasets) - 3} more" if len(table.datasets) > 3 else "")


def threat_text(threat: ThreatModel) -> str:
    """What the attacker may do: norm, eps in both spellings, knowledge, where the change acts."""
    origin = f" from {threat.source}" if threat.source else ""
    return (
        f"Threat: {threat.norm}, eps {format_eps(threat.eps, threat.norm)} ({threat.eps:.5f}), "
        f"{threat.knowledge.replace('_', '-')}{origin}, at {SPACE.replace('_', ' ')} size."
    )


def protocol_text(table: Table) -> str:
    """Shots, seeds, sampling, precision and the datasets with their sample counts."""
    protocol = table.key.protocol
    limit = "all" if protocol.limit is None else f"at most {protocol.limit} per dataset"
    parts = [f"split: {protocol.split}", f"test samples: {limit}", f"precision: {protocol.precision}"]
    parts += [f"resize: {protocol.resize}", f"attack seed: {ATTACK_SEED}"]
    if protocol.test_resize != protocol.resize:
        parts.append(f"resize of test images: {protocol.test_resize}")
    shots = "all training images" if table.key.shots < 0 else f"{table.key.shots} shots per class"
    seeds = f"{shots}, seeds {', '.join(map(str, table.seeds))}" if table.seeds else "nothing trained"
    budgets = sorted({eps for row in table.rows if row.trains for eps in row.train_eps if eps is not None})
    if budgets:
        seeds += f"; adversarial training at eps {', '.join(map(format_eps, budgets))}"
    names = ", ".join(f"{name} ({table.counts.get(name, 0)})" for name in table.datasets)
    return f"{seeds}; {'; '.join(parts)}. Datasets (test samples): {names}."


def provenance_text(tables: Sequence[Table]) -> str:
    """Where the numbers come from: dates, versions and commits of the records (never the present time)."""
    dates = sorted({date for table in tables for date in table.dates})
    commits = sorted({commit[:12] for table in tables for commit in table.commits})
    versions = sorted({version for table in tables for version in table.versions})
    span = "" if not dates else f" of {dates[0]}" if dates[0] == dates[-1] else f" of {dates[0]} to {dates[-1]}"
    made = f"Made by apd-bench report from records{span}"
    made += f", apd-bench {', '.join(versions)}" if versions else ""
    made += f", commit {', '.join(commits)}" if commits else ""
    mixed = " Records of several versions or commits are mixed." if len(versions) > 1 or len(commits) > 1 else ""
    return f"{made}.{mixed}"


def citation(tables: Sequence[Table]) -> str:
    """How to cite the program with which the records were made, as BibTeX."""
    versions = sorted({version for table in tables for version in table.versions})
    years = sorted({date[:4] for table in tables for date in table.dates})
    fields = {
        "title": "{apd-bench}: one protocol for adversarial prompt tuning of vision-language models",
        "author": "{The apd-bench developers}",
        "version": ", ".join(versions),
        "year": "" if not years else years[-1],
    }
    lines = [f"  {name} = {{{text}}}," for name, text in fields.items() if text]
    return "\n".join(["@software{apd-bench,", *lines, "}"])


def notes_of(table: Table) -> list[str]:
    """What must be known of single rows and of the records' software: one line each."""
    lines = []
    for row in table.rows:
        lines += [f"{row.method}: suspect in {count} cells: {why}" for why, count in row.suspect.items()]
        if row.collapsed:
            lines.append(f"{row.method}: {row.collapsed} fits collapsed (near chance on clean images), not left out")
        lines += [f"{row.method}: {note}" for note in row.notes]
    return [*lines, *table.notes]


def legend_lines(tables: Sequence[Table], form: str, notes: Sequence[str] = ()) -> list[str]:
    """How to read the tables of the format `form`: what all numbers are, then each column."""
    seeds = sorted({seed for table in tables for seed in table.seeds})
    spread = f"seeds {', '.join(map(str, seeds))}" if seeds else "nothing was trained, so there is one seed"
    return [
        ACCURACIES,
        f"Intervals are {LEVEL:.0%}: cluster bootstrap over seeds and samples within each dataset (one cell alone, "
        f"or all outcomes alike: Wilson); {spread}. An interval from few seeds is too narrow rather than too wide.",
        *legend(form),
        *notes,
    ]
