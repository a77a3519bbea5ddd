"""Import, train and evaluate every routing-data folder below a given one; print the table of the first results.

    python benchmarks/routing_sets.py ../shared/data

Runs the installed command, one process a step, and takes wall times.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RIPIENO = str(Path(sys.executable).with_name("ripieno"))


def run(*arguments: str, cwd: Path) -> tuple[str, float]:
    """Run the command; gives its stdout and wall seconds."""
    start = time.perf_counter()
    found = subprocess.run([RIPIENO, *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    return found.stdout, time.perf_counter() - start


def main() -> None:
    root = Path(sys.argv[1]).resolve()
    folders = [folder for folder in sorted(root.iterdir()) if (folder / "outcomes.parquet").exists()]
    if not folders:
        sys.exit(f"no routing-data folder below {root}: nothing to measure")
    print(
        "| set | held out | workers | best single | task label | kNN | ridge | clusters | router | against best single "
        "[95 %] | margin | oracle | area (best mix) | saved at equal quality | ECE | 80 % cover | train + evaluate, s |"
    )
    print("| --- |" + " ---: |" * 8 + " --- |" + " ---: |" * 7)
    for folder in folders:
        with tempfile.TemporaryDirectory() as scratch:
            print(row(folder, Path(scratch)), flush=True)


def row(folder: Path, scratch: Path) -> str:
    """One row of the table; what it has no column for goes below, on stderr."""
    run("ledger", "import", str(folder), cwd=scratch)
    trained, first = run("train", "--data", str(folder), "--out", "checkpoints", "--json", cwd=scratch)
    checkpoint = f"checkpoints/{json.loads(trained)['checkpoint']}"
    told, second = run(
        "evaluate",
        "--data",
        str(folder),
        "--checkpoint",
        checkpoint,
        "--json",
        "--predictions",
        "p.parquet",
        cwd=scratch,
    )
    report = json.loads(told)
    lines = {line["name"]: line for line in report["policies"]}
    gain, saved = lines["router"]["gain"], report["saved_at_equal_quality"]
    cells = [
        report["name"],
        str(report["tasks"]),
        str(len(report["workers"])),
        *(
            f"{lines[name]['quality']['mean']:.4f}"
            for name in ("best single", "task label", "knn", "ridge", "clusters")
        ),
        f"{lines['router']['quality']['mean']:.4f}",
        f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]",
        "never leaves" if report["margin"] > 1 else f"{report['margin']:.3f}",
        f"{lines['oracle']['quality']['mean']:.4f}",
        "-" if report["area"] is None else f"{report['area']:.4f} ({report['area_of_mix']:.4f})",
        "-" if saved is None else f"{saved:.0%}",
        f"{report['calibration_error']:.3f}",
        cover(report["coverage"]),
        f"{first + second:.0f}",
    ]
    thrifty = lines.get("thrifty router")
    means = report["quality_of"].values()
    notes = [f"{report['name']}: mean over kinds {sum(means) / len(means):.4f}"]
    if thrifty is not None:
        share = 1 - thrifty["cost_usd"] / lines["best single"]["cost_usd"]
        notes.append(f"penalty chosen on train: quality {thrifty['gain']['mean']:+.4f}, saved {share:.0%}")
    if report["apgr"] is not None:
        notes.append(f"APGR {report['apgr']:.3f}, " + ", ".join(f"{k} {v:.3f}" for k, v in report["apgr_of"].items()))
    print("; ".join(notes), file=sys.stderr, flush=True)
    return "| " + " | ".join(cells) + " |"


def cover(coverage: dict[str, float | None]) -> str:
    """Coverage of group means of quality, of costs and of latencies."""
    return " / ".join("-" if share is None else f"{share:.0%}" for share in coverage.values())


if __name__ == "__main__":
    main()
