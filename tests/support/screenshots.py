"""Refreshes the pictures of the console in `docs/pictures`.

python -m tests.support.screenshots
"""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def main() -> int:
    os.environ["SCREENSHOTS_AT"] = str(ROOT / "docs" / "pictures")
    tests = (
        "test_screenshots.py",
        "test_record_walk.py::test_pictures_of_the_auditors_pages",
        "test_policy_editor_walk.py",
    )
    return pytest.main(["-q", *(str(ROOT / "tests" / "web" / name) for name in tests)])


if __name__ == "__main__":
    sys.exit(main())
