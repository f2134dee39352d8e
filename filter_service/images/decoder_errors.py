"""Translates the errors of decoders into UnreadableImage and ImageTooLarge."""

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import PIL.Image
from PIL.ImageCms import PyCMSError

from filter_service.errors import ImageTooLarge, UnreadableImage

# What decoders raise on broken files. Not `Exception`: a time limit raised in here must pass.
FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    OSError,
    PyCMSError,
    RuntimeError,
    SyntaxError,
    SystemError,
    TypeError,
    ValueError,
    Warning,  # where a caller has made Pillow's warnings into errors
    struct.error,
    zlib.error,
)
_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def translated(problem: str) -> Iterator[None]:
    """Foreign errors in here are raised as UnreadableImage or ImageTooLarge."""
    try:
        yield
    except (PIL.Image.DecompressionBombError, MemoryError) as error:
        raise ImageTooLarge(
            f"{problem}: it would take too much memory ({error_sentence(error)}); "
            "submit a smaller image."
        ) from error
    except FOREIGN as error:
        raise UnreadableImage(
            f"{problem} ({error_sentence(error)}); submit a whole, readable image."
        ) from error


def error_sentence(error: BaseException) -> str:
    """Type and message of a foreign error, short and safe to store: no control characters."""
    text = f"{type(error).__name__}: {error}"
    return "".join(c if c.isprintable() else "?" for c in text)[:200].rstrip(".: ")


def hush() -> None:
    """Silence Pillow's warnings: limits and errors here say what they would.

    `warnings.catch_warnings` is not safe in threads, so the filter is put first and stays.
    """
    if list(warnings.filters[:1]) != [_QUIET]:
        warnings.filterwarnings("ignore", module=r"PIL\.")
