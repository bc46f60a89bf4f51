"""`edgefuse evaluate`."""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer

from edgefuse.cli.console import ExitCode, Output, progress, stderr, stdout
from edgefuse.errors import EdgefuseError, InputError, counted
from edgefuse.files import check_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefuse.evaluate import Candidate, Evaluation, Settings


def evaluate(
    ir: Path = typer.Option(..., metavar="FOLDER", help="Infrared images, or a video or recording."),
    vis: Path = typer.Option(..., metavar="FOLDER", help="Visible images, video or recording."),
    model: list[str] = typer.Option(
        [],
        metavar="NAME|FILE",
        help="Shipped model or any ONNX file; repeatable.",
        show_default="default model",
    ),
    fused: list[str] = typer.Option(
        [], metavar="FOLDER", help="Images fused elsewhere, or NAME=FOLDER; repeatable."
    ),
    no_baselines: bool = typer.Option(
        False, "--no-baselines", help="Leave out the fusions that need no network."
    ),
    engine: str | None = typer.Option(
        None, metavar="NAME", help="What runs the models.", show_default="first installed"
    ),
    protocol: str = typer.Option("field", metavar="NAME", help="field, paper (stretched) or strict."),
    metrics: str | None = typer.Option(
        None, metavar="NAMES", help="Such as VIF,Qabf; or core, or all.", show_default="main twelve"
    ),
    limit: int | None = typer.Option(None, metavar="N", help="Score at most N pairs.", show_default="all"),
    rig: Path | None = typer.Option(
        None, metavar="FILE", help="Rig file of `edgefuse calibrate`: align infrared, score the overlap."
    ),
    video: bool = typer.Option(False, "--video", help="The pairs are numbered frames: measure flicker."),
    skip_bad: bool = typer.Option(False, "--skip-bad", help="Exit with 0 even if pairs were left out."),
    jobs: int | None = typer.Option(None, metavar="N", help="Processes.", show_default="one per core"),
    cluster: str | None = typer.Option(
        None, "--engine-cluster", metavar="NAME", help="Score on a cluster: ray.", show_default="this machine"
    ),
    address: str | None = typer.Option(
        None, metavar="HOST:PORT", help="Address of the cluster.", show_default="one on this machine"
    ),
    resume: Path | None = typer.Option(
        None, metavar="FILE", help="Keep each pair's scores in FILE, and take what it has from there."
    ),
    robust: bool = typer.Option(False, "--robust", help="Also fuse noisy, shifted, darker … sources."),
    compare: tuple[str, str] | None = typer.Option(
        None, metavar="A B", help="B minus A, with confidence; models, folders or baselines."
    ),
    json: Path | None = typer.Option(None, metavar="FILE", help="Write all scores as JSON."),
    csv: Path | None = typer.Option(None, metavar="FILE", help="Write one row per pair and candidate."),
    html: Path | None = typer.Option(None, metavar="FILE", help="Write a report with plots and pictures."),
    table: Path | None = typer.Option(
        None, metavar="FILE", help="Write means ± standard deviation: .md, .tex, .csv."
    ),
    polarity: str = typer.Option("white", metavar="SIDE", help="What is hot in infrared: white or black."),
    window: str | None = typer.Option(
        None, metavar="LOW-HIGH", help="16-bit infrared values to show as black and white."
    ),
    bits: str | None = typer.Option(
        None, metavar="N", help="Bits that visible 16-bit images use, such as 12."
    ),
) -> None:
    """Score models and folders of fused images.

    Fusions that need no network are scored beside them. Pairs have equal file stems and must be of one
    size, unless --rig aligns them. A pair that one candidate lacks counts for none; it is listed, and
    the exit code is then 3.
    """
    from edgefuse.evaluate import Settings, write_csv, write_html, write_json, write_table
    from edgefuse.evaluate import compare as run_comparison
    from edgefuse.evaluate import evaluate as run
    from edgefuse.evaluate.tables import (
        compare_table,
        degradations,
        problem_table,
        robust_tables,
        summary_table,
    )
    from edgefuse.images import bits_of
    from edgefuse.machine import usable_cores
    from edgefuse.rig import Rig
    from edgefuse.tables import as_lines, show
    from edgefuse.thermal_config import ThermalConfig
    from edgefuse.workers import distribution

    texts = {"polarity": polarity} | ({"window": window} if window else {})
    thermal, used_bits = ThermalConfig.from_options(texts), bits_of(bits) if bits else None
    alignment = Rig.load(rig) if rig else None
    settings = Settings(protocol, _names(metrics), video, robust, thermal, used_bits, alignment)
    distribute = distribution(cluster, address)
    _check_targets(table, json, csv, html, resume)
    candidates, compared = _candidates(model, fused, not no_baselines, compare, engine)
    out, err = stdout(), stderr()
    with _as_folders(ir, vis, limit, texts, settings.bits, bool(resume)) as (folders, settings_of):
        work = partial(
            run,
            *folders,
            candidates,
            settings_of(settings),
            limit=limit,
            jobs=usable_cores() if jobs is None and distribute is None else jobs,
            distribute=distribute,
            resume=resume,
        )
        result = _scored(err, work, resume)
        result.ir, result.vis = ir, vis
        comparison = run_comparison(result, *compared) if compared else None
        if json:
            write_json(json, result, comparison)
        if csv:
            write_csv(csv, result)
        if html:
            write_html(html, result, comparison)
        if table:
            write_table(table, result)
        # Last: who reads it may be gone, as in `| head`.
        show(out, [summary_table(result), *robust_tables(result)])
        if robust:
            out.say(degradations())
        if comparison:
            show(out, [compare_table(comparison)])
    if result.kept:
        err.say(f"{counted(result.kept, 'pair')} of {len(result.pairs)} kept from before: {resume}")
    if result.problems:
        err.say(as_lines(problem_table(result)))
        if not skip_bad:
            raise typer.Exit(ExitCode.PARTIAL)


@contextmanager
def _as_folders(
    ir: Path, vis: Path, limit: int | None, options: dict[str, str], bits: int | None, resumed: bool
) -> "Iterator[tuple[tuple[Path, Path], Callable[[Settings], Settings]]]":
    """Yield two folders of images, of recordings those of their pairs, and what becomes of the settings."""
    from edgefuse.batch import are_recordings, save_pairs
    from edgefuse.thermal_config import ThermalConfig

    if not are_recordings(ir, vis):
        yield (ir, vis), lambda settings: settings
        return
    if resumed:
        raise InputError(f"{ir} is a recording: --resume is for folders of images")
    with TemporaryDirectory(prefix="edgefuse-") as folder:
        # Infrared has been shown with the options already.
        yield (
            save_pairs(ir, vis, Path(folder), limit, options, bits),
            lambda settings: replace(settings, thermal=ThermalConfig()),
        )


def _scored(console: Output, run: "Callable[..., Evaluation]", resume: Path | None) -> "Evaluation":
    """Evaluate under a progress bar."""
    with progress(console, "Scoring") as show:
        try:
            return run(progress=show)
        except KeyboardInterrupt:
            left = f"; {resume} has what was scored" if resume else ""
            raise EdgefuseError(
                f"stopped before all pairs were scored, no results are written{left}"
            ) from None


def _names(text: str | None) -> tuple[str, ...]:
    """Return the metrics that a comma-separated text names."""
    from edgefuse.metrics import CORE_METRICS, METRICS, TABLE_METRICS

    if text is None:
        return TABLE_METRICS
    groups = {"all": tuple(METRICS), "core": CORE_METRICS}
    names = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(each for name in names for each in groups.get(name.lower(), (name,)))


def _check_targets(table: Path | None, *others: Path | None) -> None:
    """Refuse a file that cannot be written before the work and not after it."""
    from edgefuse.evaluate.tables import check_table_file

    paths = (table, *others)
    given = [path.resolve() for path in paths if path]
    if twice := next((path for path in given if given.count(path) > 1), None):
        raise InputError(f"{twice} is given for two kinds of results: name a different file for each")
    for path in paths:
        if path:
            check_writable(path)
    if table:
        check_table_file(table)


def _candidates(
    models: list[str],
    folders: list[str],
    with_baselines: bool,
    compare: tuple[str, str] | None,
    engine: str | None,
) -> "tuple[list[Candidate], tuple[str, str] | None]":
    """Return what is scored, and the names of what is compared."""
    from edgefuse.evaluate import BASELINES, baseline, model, named
    from edgefuse.evaluate.candidates import unique
    from edgefuse.packages import is_installed
    from edgefuse.weights import DEFAULT_MODEL

    compared = [named(text, engine) for text in compare or ()]
    if len(compared) > len(set(compared)):
        raise InputError(
            f"--compare has {compare[0] if compare else ''!r} twice, it needs two different ones"
        )
    without_engine = not any(map(is_installed, ("onnxruntime", "openvino", "tensorrt")))
    if not models and not compared and not (folders and without_engine):
        models = [DEFAULT_MODEL]
    # Named by its option and not by what is there: a folder called nano is not the model.
    chosen = compared + [baseline(name) if name in BASELINES else model(name, engine) for name in models]
    chosen += [_folder(text) for text in folders]
    if with_baselines:
        chosen += [baseline(name) for name in BASELINES]
    chosen = unique(chosen)
    return chosen, (chosen[0].name, chosen[1].name) if compared else None


def _folder(text: str) -> "Candidate":
    """Return the folder of `NAME=FOLDER` or `FOLDER`; what is a folder as a whole is no name."""
    from edgefuse.evaluate import folder

    name, equals, path = text.partition("=")
    if equals and name and path and not Path(text).is_dir():
        return folder(path, name)
    return folder(text)
