"""The command line: one short function a command. Imports stand inside them, so that ``--help`` answers at once."""

from __future__ import annotations

import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from mixbench.data import cli as holdings
from mixbench.options import command_for, data_option, mini_option, results_option
from mixbench.printing import cli as printing
from mixbench.running import BAD_INPUT, DISK, DONE, FAILED, INTERRUPTED, LOCKED, UNKNOWN
from mixbench.slurm import cli as cluster
from mixbench.timing import cli as timekeeping


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(package_name="mixbench")
@click.pass_context
def cli(context: click.Context) -> None:
    """Compare sample-mixing augmentations under one protocol, with tables that can be trusted."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@click.argument("sweep", type=click.Path(path_type=Path))
@click.option("--only", metavar="ROW,...", help="Only these rows, and what they need.")
@click.option("--slots", type=click.IntRange(1), help="Runs at a time.  [default: one per GPU or core]")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads of a run.")
@click.option("--workers", type=click.IntRange(0), help="Processes that decode a run's images.  [default: by cores]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda where there is a GPU]")
@click.option(
    "--layout", type=click.Choice(["channels_last", "contiguous"]), default="channels_last", show_default=True
)
@click.option("--cuda-graph/--no-cuda-graph", default=True, show_default=True, help="Replay training steps on a GPU.")
@click.option(
    "--cam-cache",
    type=click.Choice(["off", "device", "host"]),
    default="device",
    show_default=True,
    help="Where to keep a teacher's maps of views.",
)
@click.option("--on", type=click.Choice(["here", "slurm"]), default="here", show_default=True, help="Who does it.")
@click.option("--slurm", "pairs", metavar="KEY=VALUE", multiple=True, help="Of sbatch: partition, account, time ...")
@click.option("--slurm-file", type=click.Path(path_type=Path), help="A file of them.  [default: $MIXBENCH_SLURM]")
@click.option("--pack", type=click.IntRange(1), default=1, show_default=True, help="Runs of a job on the cluster.")
@click.option("--max-jobs", type=click.IntRange(1), help="Jobs at work at a time.  [default: no limit]")
@click.option("--wait", is_flag=True, help="Watch the cluster until nothing is in flight; Ctrl-C only ends that.")
@click.option("--retry-failed", is_flag=True, help="Try failed runs again too.")
@click.option("--no-search", is_flag=True, help="Refuse to search for a policy that is not there.")
@mini_option
@click.option("--dry-run", is_flag=True, help="Say what there is to do, and do nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what goes wrong.")
@data_option
@results_option
def run(
    sweep: Path,
    only: str | None,
    retry_failed: bool,
    no_search: bool,
    mini: bool,
    dry_run: bool,
    quiet: bool,
    **how: Any,
) -> int:
    """Have done what a SWEEP still lacks.

    As often as you like: what is done is never done twice, what was stopped goes on where it was.
    """
    from mixbench import running
    from mixbench.launch import check_searched, plan, prepare
    from mixbench.recipes import blaming
    from mixbench.resolve import load_sweep
    from mixbench.store import Store

    grid = load_sweep(sweep, data=how["data"], results=how["results"], mini=mini, machine=running.machine(how))
    if only is not None:
        with blaming("--only"):
            grid = grid.only([row.strip() for row in only.split(",")])
    watcher = running.watcher(quiet=True)
    store = Store(how["results"], tell=watcher.told)
    planned = plan(grid, store, retry_failed=retry_failed)
    if no_search:
        check_searched(planned, command=command_for(sweep, how["data"], how["results"], mini=mini))
    if not quiet or dry_run:
        click.echo(planned.sentence())
    for sentence in planned.outdated(store):
        watcher.told(sentence)
    if how["on"] == "slurm":
        from mixbench.slurm import handing as on_slurm

        again = partial(plan, grid, store, retry_failed=retry_failed)
        return on_slurm.run(planned, store, sweep, how, again=again, dry_run=dry_run)
    running.check_here(how)
    if dry_run:
        return running.list_todo(planned, store)
    execution = running.execution(how, grid.places)
    facts = prepare(planned, store, execution)
    if not planned.todo:
        if not quiet:
            click.echo("nothing to do")
        return running.summary(planned, quiet=True)
    from mixbench.checking import rehearse

    rehearse(planned, facts, sweep, execution)
    code = running.work(planned, store, execution, how["slots"], running.watcher(quiet=quiet, total=len(planned.todo)))
    if code != DONE:
        return code
    return running.summary(plan(grid, store), quiet=quiet)


@cli.command(name="list")
@click.option(
    "--methods", "only_methods", is_flag=True, help="More of each method: its paper, needs, draws and options."
)
def list_(only_methods: bool) -> int:
    """Show methods with their options, data sets, models and recipes."""
    from mixbench import listing

    for line in listing.methods() if only_methods else listing.listing():
        click.echo(line)
    return DONE


@cli.command()
@click.argument("methods", nargs=-1, required=True, metavar="METHOD...")
def check(methods: tuple[str, ...]) -> int:
    """Hold METHODs against the contract that every mixer keeps, with a small network of the contract's own."""
    from mixbench.checking import complaints

    broken = False
    for name in methods:
        found = complaints(name)
        click.echo(f"{name} {'breaks' if found else 'keeps'} the contract" + "".join(f"\n  {one}" for one in found))
        broken |= bool(found)
    return FAILED if broken else DONE


@cli.command()
@click.argument("run", metavar="RUN")
@results_option
def why(run: str, results: Path) -> int:
    """Say what a RUN is (an id or its beginning), its state, and how it differs from the nearest finished one."""
    from mixbench import status
    from mixbench.store import Store

    store = Store(results, tell=lambda sentence: click.echo(sentence, err=True))
    for line in status.why(status.find(run, store), store):
        click.echo(line)
    return DONE


cli.add_command(printing.report)
cli.add_command(printing.show)
cli.add_command(holdings.commands)
cli.add_command(timekeeping.command)
for command in cluster.COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Run the command line; turn what the user can mend into one sentence and an exit code."""
    from mixbench.files import DISK_ERRORS, DamagedError
    from mixbench.slurm import LockedError, UnknownError

    try:
        _check_installation()
        code = cli.main(prog_name="mixbench", standalone_mode=False)
    except click.ClickException as error:
        _complain(error.format_message())
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except SystemExit:  # how click takes it that the reader of a pipe has left: there is nobody to tell
        code = DONE
    except (ValueError, DamagedError) as error:
        if os.environ.get("MIXBENCH_DEBUG"):
            raise
        _complain(str(error))
        code = BAD_INPUT
    except UnknownError as error:
        _complain(str(error))
        code = UNKNOWN
    except LockedError as error:
        _complain(str(error))
        code = LOCKED
    except OSError as error:
        _complain(f"{error.filename or 'a file'}: {error.strerror or error}")
        code = DISK if error.errno in DISK_ERRORS else BAD_INPUT
    sys.exit(code)


def _complain(sentence: str) -> None:
    """Say on standard error what went wrong: one line, whatever names it quotes."""
    click.echo(f"mixbench: {' '.join(sentence.splitlines())}", err=True)


def _check_installation() -> None:
    """`methods` and `analysis` are generic names: refuse another package's, which pip may have put over ours."""
    home = Path(__file__).resolve().parent.parent
    for name in ("methods", "analysis"):
        found = find_spec(name)
        origin = Path(found.origin).resolve().parent.parent if found and found.origin else None
        if origin != home:
            raise ValueError(
                f"'{name}' at {origin} is not mixbench's; another package of that name is installed here. "
                "Install mixbench in an environment of its own"
            )
