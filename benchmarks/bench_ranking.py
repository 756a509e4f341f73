"""Ranking quality: the public splits of Yelp2018 and Gowalla, and the sample data at hand.

Run: `make bench-ranking`, or with folders of one's own (`train.txt[.gz]`, `test.txt[.gz]`):
`python -m benchmarks.bench_ranking --yelp2018 PATH --gowalla PATH`. Every figure comes from
`tastematch evaluate --json`, one run an algorithm; memory is what all its processes hold together,
sampled, so what they share counts twice.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil

HOME = Path(__file__).resolve().parent.parent
FOLDERS = HOME / ".data" / "benchmarks"
SAMPLE = HOME / "data" / "nyc-visits"
SAMPLE_SECONDS = 0.02
DATA_SETS = {"yelp2018": "Yelp2018", "gowalla": "Gowalla"}
WHERE = (
    "{name}: no files in {folder}; they are data/{key} of github.com/gusye1234/LightGCN-PyTorch "
    "(dataset/*.npz of github.com/jindeok/Turbo-CF holds the same split)"
)
ALGORITHMS = ("sharpened", "item-graph", "popularity")
BARS = "BARS, github.com/reczoo/BARS docs/Matching/leaderboard"
CHEBY = "ChebyCF's table, asset/performance.png of its repository"

PEERS: tuple[tuple[str, str, str, str], ...] = (
    ("MF-BPR", ".0576/.0468", ".1627/.1378", BARS),
    ("ItemKNN", ".0639/.0531", ".1570/.1214", BARS),
    ("SLIM", ".0646/.0541", ".1699/.1382", BARS),
    ("EASE", ".0657/.0552", ".1765/.1467", BARS),
    ("LightGCN", ".0653/.0532", ".1820/.1547", BARS),
    ("UltraGCN", ".0683/.0561", ".1862/.1580", BARS),
    ("SimpleX", ".0701/.0575", ".1872/.1557", BARS),
    ("GF-CF", ".0697/.0571", ".1849/.1518", BARS),
    ("Turbo-CF (2024)", ".0693/.0574", ".1835/-", "paperswithcode, wizwand"),
    ("LinkProp-Multi", "-", ".1908/.1573", CHEBY),
    ("PGSP", "-", ".1917/.1606", CHEBY),
    ("BSPM (2023)", "-", ".1920/.1597", "paperswithcode"),
    ("SGFCF (2024)", "-", ".1898/.1566", CHEBY + "; its authors used other splits"),
    ("XSimGCL", ".0723/.0604", "-", "SELFRec leaderboard"),
    ("ChebyCF (2025)", "-", ".1941/.1616", CHEBY),
)
"""Recall@20/NDCG@20 that others published for the same splits, on Yelp2018 and Gowalla."""

MUST = {
    "yelp2018": {"recall_at_20": 0.0709, "ndcg_at_20": 0.0584},
    "gowalla": {"recall_at_20": 0.1905, "ndcg_at_20": 0.1595},
}
MUST_SECONDS, MUST_MB = 60, 512
SAMPLE_CUT = ("--train-share", "0.7", "--validation-share", "0.1")
"""The model sees the first 80 % of the orders; parameters are chosen on the newest 10 of them."""


NO_CAP = 10
CUISINE_CAPS = (NO_CAP, 6, 5, 4, 3)


@dataclass(frozen=True, slots=True)
class Run:
    document: dict[str, Any]
    peak_mb: float


@click.command()
@click.option("--yelp2018", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--gowalla", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(*, yelp2018: Path | None, gowalla: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="tastematch-bench-") as scratch:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": scratch,
            "PYTHONPATH": str(HOME),
            "TASTEMATCH_DATA_DIR": str(Path(scratch) / "data"),
            "TASTEMATCH_LOG_LEVEL": "WARNING",
        }
        found = {}
        for key, given in (("yelp2018", yelp2018), ("gowalla", gowalla)):
            folder = given or FOLDERS / key
            if given or folder.is_dir():
                found[key] = _public(env, folder)
            else:
                print(WHERE.format(name=DATA_SETS[key], key=key, folder=folder.relative_to(HOME)))
        if found:
            _print_public(found)
        _command(env, "migrate")
        _command(env, "import", str(SAMPLE))
        for words in (("--view", "time", *SAMPLE_CUT), ()):
            _print_sample(_evaluate(env, *words))
        _print_caps(env)


def _public(env: dict[str, str], folder: Path) -> dict[str, Run]:
    return {name: _evaluate(env, "--data", str(folder), "--algorithm", name) for name in ALGORITHMS}


def _print_public(found: dict[str, dict[str, Run]]) -> None:
    print("\nLightGCN splits, all items ranked: Recall@20/NDCG@20\n")
    _print_header(
        "model", *DATA_SETS.values(), "fit and rank, s", "peak of all processes", "source"
    )
    for name in ALGORITHMS:
        results = {key: runs[name].document["results"][0] for key, runs in found.items()}
        _print_row(
            f"**TasteMatch, {name}**" if name == ALGORITHMS[0] else f"TasteMatch, {name}",
            *(_pair(results.get(key)) for key in DATA_SETS),
            " / ".join(f"{result['seconds']:.1f}" for result in results.values()),
            " / ".join(f"{runs[name].peak_mb:.0f} MB" for runs in found.values()),
            "this run",
        )
    for name, yelp, gowalla, source in PEERS:
        _print_row(name, yelp, gowalla, "", "", source)
    print()
    _print_header("bound", "measured", "must be", "kept")
    for key, runs in found.items():
        run = runs[ALGORITHMS[0]]
        result = run.document["results"][0]
        for figure, least in MUST[key].items():
            kept = round(result[figure], 4) >= least
            _print_bound(f"{DATA_SETS[key]} {figure}", f"{result[figure]:.4f}", str(least), kept)
        seconds = result["seconds"]
        _print_bound(
            f"{DATA_SETS[key]} fit and rank", f"{seconds:.1f} s", "60 s", seconds <= MUST_SECONDS
        )
        _print_bound(
            f"{DATA_SETS[key]} peak", f"{run.peak_mb:.0f} MB", "512 MB", run.peak_mb <= MUST_MB
        )


def _print_sample(run: Run) -> None:
    for split, about in run.document["splits"].items():
        if split == "time":
            share = about["train_share"] + about["validation_share"]
            print(f"\nSample data, time cut after {100 * share:.0f} % of the orders", end="")
        else:
            print("\nSample data, each user's newest order left out", end="")
        print(
            f": {about['users']} next orders, {100 * about['repeat_share']:.1f} % of them repeats; "
            f"{about['unseen_targets']} more at restaurants without an earlier order\n"
        )
        _print_header(
            "list",
            "algorithm",
            "users",
            "hit@10",
            "95 %",
            "the unseen as misses",
            "NDCG@20",
            "95 %",
        )
        results = [one for one in run.document["results"] if one["split"] == split]
        for result in sorted(results, key=lambda one: str(one["list"]), reverse=True):
            users = result["users"]
            share = users / max(1, users + about["unseen_targets"])
            _print_row(
                result["list"],
                result["algorithm"],
                str(users),
                f"{result['hit_rate_at_10']:.4f}",
                _interval(result, "hit_rate_at_10"),
                f"{result['hit_rate_at_10'] * share:.4f}",
                f"{result['ndcg_at_20']:.4f}",
                _interval(result, "ndcg_at_20"),
            )
    print(f"\npeak of all processes: {run.peak_mb:.0f} MB")


def _print_caps(env: dict[str, str]) -> None:
    """What a cap on one cuisine costs and gains."""
    print("\nAt most so many of one cuisine in ten, on the same time cut: `discover`\n")
    _print_header("cap", "NDCG@20", "lost", "diversity in the first ten", "gained")
    base: dict[str, Any] = {}
    for cap in CUISINE_CAPS:
        words = ("--view", "time", *SAMPLE_CUT, "--algorithm", ALGORITHMS[0])
        document = _evaluate({**env, "TASTEMATCH_CUISINE_CAP": str(cap)}, *words).document
        (result,) = (one for one in document["results"] if one["list"] == "discover")
        base = base or result
        ndcg, diversity = result["ndcg_at_20"], result["diversity"]
        _print_row(
            f"{cap}{' (none)' * (cap == NO_CAP)}",
            f"{ndcg:.4f}",
            f"{base['ndcg_at_20'] - ndcg:.4f}",
            f"{diversity:.3f}",
            f"{diversity - base['diversity']:.3f}",
        )


def _evaluate(env: dict[str, str], *words: str) -> Run:
    """One run of the command, its whole tree of processes watched."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tastematch", "evaluate", "--json", *words],
        env=env,
        cwd=HOME,
        stdout=subprocess.PIPE,
    )
    peak = 0.0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(SAMPLE_SECONDS):
            peak = max(peak, _tree_rss_mb(child.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        output, _ = child.communicate()
    finally:
        ended.set()
        watcher.join()
    if child.returncode != 0:
        raise SystemExit(f"tastematch evaluate ended with status {child.returncode}")
    return Run(json.loads(output), peak)


def _tree_rss_mb(pid: int) -> float:
    total = 0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def _command(env: dict[str, str], *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "tastematch", *arguments],
        env=env,
        cwd=HOME,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _pair(result: dict[str, Any] | None) -> str:
    if result is None:
        return "-"
    pair = (f"{result[key]:.4f}".removeprefix("0") for key in ("recall_at_20", "ndcg_at_20"))
    return "/".join(pair)


def _interval(result: dict[str, Any], figure: str) -> str:
    low, high = result["intervals"][figure]
    return f"{low:.3f}-{high:.3f}"


def _print_header(*names: str) -> None:
    _print_row(*names)
    _print_row(*("---" for _ in names))


def _print_bound(name: str, measured: str, bound: str, kept: bool) -> None:
    _print_row(name, measured, bound, "yes" if kept else "NO")


def _print_row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
