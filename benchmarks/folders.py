"""A temporary folder for a benchmark's database servers, deleted afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is deleted with all gigabytes in it, also where root runs the benchmark.

    Root's servers run under an account of their own; where it cannot pass a folder, their files
    lie outside it, and stay.
    """
    with TemporaryDirectory(prefix="filter-service-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder
