"""The benchmarks of the service at their smallest: they run, and print the figures they promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUNDLED = ("--model", "bundled", "--pretrained", "")  # loads in a second, ViT-B/32 in twenty
PATIENCE = 300  # seconds


def printed(name: str, *options: str) -> str:
    """What a benchmark prints, run as a user would from the root of the sources."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def throughput() -> str:
    return printed("throughput", "--images", "24", "--rounds", "1", *BUNDLED)


def test_throughput_gives_every_rate_and_ratio(throughput: str) -> None:
    median = next(line for line in throughput.splitlines() if line.startswith("median of 1:"))
    figures = dict(re.findall(r"(c/a|c/b|[abc]) (\d+\.\d+)", median))
    assert set(figures) == {"a", "b", "c", "c/a", "c/b"}
    assert all(float(value) > 0 for value in figures.values())
    assert "at 1% flagged" in median and "at 5% flagged" in median


def test_throughput_names_the_processor_and_the_precision(throughput: str) -> None:
    assert re.search(r"CPU with \w+, \d+ threads; the service screens in \w+", throughput)


def test_no_verdict_of_the_service_differs_from_float32(throughput: str) -> None:
    assert re.findall(r"verdicts unlike float32's at \d% flagged: (\d+)", throughput) == ["0", "0"]


def test_throughput_states_the_peak_memory_of_the_worker(throughput: str) -> None:
    (peak,) = re.findall(r"peak memory of the worker: (\d+) MB", throughput)
    assert 100 < int(peak) < 10_000


def test_memory_compares_the_end_with_the_first_tenth() -> None:
    lines = printed("memory", "--images", "10").splitlines()
    assert len(lines) == 11
    assert re.fullmatch(
        r"after 10 images [+-]\d+\.\d% against after 1; the most at any time \d+ MB", lines[-1]
    )


@pytest.mark.parametrize(
    ("name", "options", "promised"),
    [
        ("policy_comparison", ("--vectors", "3000"), r"median of 3: \d+\.\d\d s; this process"),
        ("ledger", ("--entries", "600", "--rate", "100", "--seconds", "2"), r"verif\w+.* MB"),
        ("exports", ("--items", "300"), r"over 200 MB: .*\nfigures of all of it in \d+\.\d s"),
    ],
)
def test_benchmarks_of_the_record_print_their_figures(
    name: str, options: tuple[str, ...], promised: str
) -> None:
    assert re.search(promised, printed(name, *options))


def test_no_margin_of_the_fast_pass_lies_outside_its_band() -> None:
    first, *lines = printed("bands", "--images", "160").splitlines()
    assert re.match(r"bundled, 160 pictures of 10 kinds; CPU with \w+", first)
    outside = re.findall(r"(\w+): (\d+) of 640 margins outside the band", "\n".join(lines))
    assert outside == [("float32", "0"), ("bfloat16", "0")]
    assert sum("flagged" in line and "confirmed" in line for line in lines) == 2
