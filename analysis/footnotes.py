"""What a reader must know to trust a table: the sentences below it, derived from its `Grid`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from analysis import stats
from analysis.fairness import averages, costs, networks, unfinished
from analysis.grid import Entry, Grid
from analysis.paper import Claim
from analysis.places import Leaf, leaf_of, shortest
from mixbench import catalog
from mixbench.data import OWN_FOLDER
from mixbench.result import Result
from mixbench.spec import Run

DAGGER = "†"
DASH = "\N{EN DASH}"

VERDICTS: Mapping[str, str] = {
    "reproduced": f"the difference is shown to be below {stats.MARGIN:g} points: its 90 % interval lies within",
    "compatible": "not shown to be that small, and not shown to be other than zero either",
    "differs": "not shown to be that small, and the 95 % interval of the difference excludes zero",
    "not run": "no result of ours counts here",
}


def footnotes(grid: Grid) -> list[str]:
    """All sentences of a grid, the most important first."""
    parts = (
        _unlike,
        networks,
        averages,
        costs,
        unfinished,
        _data,
        _left_out,
        _problems,
        _warnings,
        _code,
        _mixers,
        _imports,
        _executions,
        _gaps,
        _paper,
        _verdicts,
    )
    return [note for part in parts for note in part(grid)]


def mark(grid: Grid, column: str) -> str:
    """What stands behind a column's name, of data that are not the official release."""
    if grid.columns[column].official is False:
        return f" {DAGGER}"
    return " (own data)" if _is_own(grid, column) else ""


def _unlike(grid: Grid) -> Iterator[str]:
    if grid.sweep.table.unlike:
        yield f"rows of a column may differ in {', '.join(grid.sweep.table.unlike)}: they are not one protocol"


def _data(grid: Grid) -> Iterator[str]:
    beside = "no number of the paper is set beside it"
    unofficial = [(column.unlike, column.content) for column in grid.columns.values() if column.official is False]
    for unlike, content in dict.fromkeys(unofficial):
        yield f"{DAGGER} {unlike} (fingerprint {content}); {beside}"
    for name, column in grid.columns.items():
        if _is_own(grid, name):
            content = column.content or "not known before a run is done"
            yield f"{grid.label(name)}: {column.unlike} (fingerprint {content}); {beside}"
        elif column.unlike and column.official is not False and grid.sweep.table.paper is not None:
            yield f"{grid.label(name)}: {column.unlike}; {beside}"


def _left_out(grid: Grid) -> Iterator[str]:
    for name, column in grid.columns.items():
        if not column.left_out:
            continue
        runs = [(entry, run) for entry in _entries(grid, name) for run in entry.cell.runs]
        among = [leaf_of(grid, entry, f"seed {run.seed}") for entry, run in runs]
        seen = {reading.run: reading.result.content for reading in column.left_out}
        for content in dict.fromkeys(seen.values()):
            chosen = [leaf for leaf, (_, run) in zip(among, runs, strict=True) if seen.get(run) == content]
            yield (
                f"{grid.label(name)}: {shortest(chosen, among)} left out: trained on other data (fingerprint "
                f"{content}) than most of the column ({column.content}). To have them in, delete their folders below "
                "runs/ and run them again on the data of the others"
            )


def _problems(grid: Grid) -> Iterator[str]:
    problems = grid.gathered.problems
    told: set[Run] = set()
    for entry in grid.entries.values():
        affected = [run for run in entry.cell.runs if run in problems and run not in told]
        told.update(affected)
        if affected:  # a changed default makes a whole cell stale in the same words: the first run speaks for all
            others = f" (likewise for {len(affected) - 1} more of this cell's runs)" if len(affected) > 1 else ""
            yield f"{problems[affected[0]]}{others}"


def _warnings(grid: Grid) -> Iterator[str]:
    """Cells made by, or with the help of, runs in which something went wrong."""
    if not grid.gathered.warnings:
        return
    entries = list(grid.entries.values())
    among = [leaf_of(grid, entry, f"seed {one.run.seed}") for entry in entries for one in entry.readings]
    for made, warning in grid.gathered.warnings.items():
        chosen = [
            leaf_of(grid, entry, f"seed {one.run.seed}")
            for entry in entries
            for one in entry.readings
            if made in (one.run, *one.run.needs())
        ]
        if chosen:  # else what it helped to make is not in the table
            yield f"{shortest(chosen, among)}: {made.folder}: {warning}"


def _code(grid: Grid) -> Iterator[str]:
    entries = list(grid.entries.values())
    commits = {one.result.commit for entry in entries for one in entry.readings}
    plus = "+ marks uncommitted changes, so that this code cannot be checked out again"
    dirty = any(commit.endswith("+") for commit in commits)
    if len(commits) > 1:
        groups = _groups(grid, entries, lambda result: {"code": result.commit})["code"]
        yield f"the results were made by different code: {_listed(groups)}" + (f"; {plus}" if dirty else "")
    elif dirty:
        yield f"all results were made by the code of {next(iter(commits))}; {plus}"


def _mixers(grid: Grid) -> Iterator[str]:
    """Rows whose results were made by other versions of the mixer's file than today's, or by several."""
    found = [(entry, one) for entry in grid.entries.values() for one in entry.readings]
    old: dict[tuple[str, str], list[Leaf]] = {}
    for entry, one in found:
        if one.result.code != catalog.code(one.run.method):
            leaf = leaf_of(grid, entry, f"seed {one.run.seed}")
            old.setdefault((one.run.family, one.run.method), []).append(leaf)
    among = [leaf_of(grid, entry, f"seed {one.run.seed}") for entry, one in found] if old else []
    for (family, method), leaves in old.items():
        yield (
            f"{shortest(leaves, among)}: made by another version of the code of {method} than today's; to have them "
            f"made again, delete the folders {family}-* below runs/"
        )


def _imports(grid: Grid) -> Iterator[str]:
    """Cells that stand on a network that somebody else trained: it may have seen other images, or the test images."""
    found = {
        leaf_of(grid, entry, "")[:2]: {one.checkpoint for one in all_of(entry.cell.runs[0])}  # alike in all but seeds
        for entry in grid.entries.values()
    }
    for checkpoint in sorted(set().union(*found.values()) - {""}):
        cells = [leaf for leaf, checkpoints in found.items() if checkpoint in checkpoints]
        yield (
            f"{shortest(cells, list(found))}: with a network that somebody else trained; the SHA-256 of its file "
            f"begins with {checkpoint[:10]}"
        )


def all_of(run: Run) -> Iterator[Run]:
    """The run and all that it needs."""
    yield run
    for need in run.needs():
        yield from all_of(need)


def _executions(grid: Grid) -> Iterator[str]:
    for name in grid.columns:
        entries = _entries(grid, name)
        if len({tuple(_facts(one.result).items()) for entry in entries for one in entry.readings}) < 2:
            continue
        groups = _groups(grid, entries, _facts)
        mixed = [f"{fact}: {_listed(group)}" for fact, group in groups.items() if len(group) > 1]
        if mixed:
            yield (
                f"{grid.label(name)}: not all results were computed alike, and only what is computed alike can be "
                f"repeated to the last bit. {'. '.join(mixed)}"
            )


def _gaps(grid: Grid) -> Iterator[str]:
    if any(not entry.complete for entry in grid.entries.values()):
        yield f"(n/m): n of the cell's m runs are in its numbers; {DASH}: none is"


def _paper(grid: Grid) -> Iterator[str]:
    number = grid.sweep.table.paper
    if number is None:
        return
    claims = [
        (leaf_of(grid, entry, name), claim) for entry in grid.entries.values() for name, claim in entry.claims.items()
    ]
    among = [leaf for leaf, _ in claims]
    if not grid.has_paper:
        yield f"the numbers of the paper's table {number} are not shown: there is no paper.csv in the results folder"
    elif not claims:
        yield f"the paper's table {number} has no number for any of these cells"
    else:
        whose = _by_text(claims, lambda claim: [claim.source])
        sources = "; ".join(f"{source} for {_places(leaves, among)}" for source, leaves in whose.items())
        yield f"paper: table {number} of TransformMix, which does not say of which epoch its numbers are"
        yield f"paper, sources: {sources}"
        for fact, leaves in _by_text(claims, lambda claim: filter(None, claim.note.split("; "))).items():
            yield f"paper, {_places(leaves, among)}: {fact}"


def _verdicts(grid: Grid) -> Iterator[str]:
    given = [verdict for entry in grid.entries.values() for verdict in entry.verdicts.values()]
    words = [word for word in VERDICTS if any(verdict.word == word for verdict in given)]
    if words:
        yield "; ".join(f"{word}: {VERDICTS[word]}" for word in words)
    if any(verdict.interval for verdict in given):
        yield (
            "intervals of the difference to the paper: Welch's, where it gives a deviation and a number of runs; "
            f"else its number is assumed to come of {stats.ASSUMED_RUNS} run that scatters as ours do"
        )
    if any(verdict.word == "" for verdict in given):
        yield f"fewer than {stats.FEWEST} runs of ours: no verdict"


def _by_text(claims: Sequence[tuple[Leaf, Claim]], texts: Callable[[Claim], Iterable[str]]) -> dict[str, list[Leaf]]:
    """Where each of the texts holds."""
    places: dict[str, list[Leaf]] = {}
    for leaf, claim in claims:
        for text in texts(claim):
            places.setdefault(text, []).append(leaf)
    return places


def _places(chosen: Sequence[Leaf], among: Sequence[Leaf]) -> str:
    return "all" if len(chosen) == len(among) else shortest(chosen, among)


def _groups(
    grid: Grid, entries: Sequence[Entry], facts: Callable[[Result], Mapping[str, str]]
) -> dict[str, dict[str, list[Leaf]]]:
    """Where each value of each fact of a result holds; of a fact, the most frequent value first."""
    groups: dict[str, dict[str, list[Leaf]]] = {}
    for entry in entries:
        for one in entry.readings:
            leaf = leaf_of(grid, entry, f"seed {one.run.seed}")
            for fact, value in facts(one.result).items():
                groups.setdefault(fact, {}).setdefault(value, []).append(leaf)
    return {fact: dict(sorted(group.items(), key=lambda item: -len(item[1]))) for fact, group in groups.items()}


def _facts(result: Result) -> dict[str, str]:
    """What, besides the run itself and the code, made a result what it is to the last bit."""
    how = result.execution
    kind = str(how["device"]).partition(":")[0]
    threads = {"threads": str(how["threads"])} if kind == "cpu" else {}
    layout = {"layout": "channels_last" if how["channels_last"] else "contiguous"}
    graph = {"cuda_graph": str(how["cuda_graph"])} if "cuda_graph" in how else {}
    return {"device": f"{result.device} ({kind})"} | threads | layout | graph | dict(result.versions)


def _listed(groups: Mapping[str, Sequence[Leaf]]) -> str:
    """The most frequent value with its count, the others with their places."""
    among = [leaf for leaves in groups.values() for leaf in leaves]
    (most, many), *others = groups.items()
    count = f"{len(many)} result{'s' if len(many) > 1 else ''}"
    return ", ".join([f"{most} ({count})", *(f"{one} ({shortest(where, among)})" for one, where in others)])


def _entries(grid: Grid, column: str) -> list[Entry]:
    return [entry for entry in grid.entries.values() if entry.cell.column == column]


def _is_own(grid: Grid, column: str) -> bool:
    return _entries(grid, column)[0].cell.runs[0].dataset.startswith(OWN_FOLDER)
