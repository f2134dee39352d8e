"""Reads the EXIF orientation of a picture and turns it upright."""

from collections.abc import Iterator

import PIL.Image
from PIL.ExifTags import Base as Tag
from PIL.Image import Transpose
from PIL.ImageFile import ImageFile

from filter_service.images.decoder_errors import FOREIGN

UPRIGHT = 1
NOT_TURNED = "not turned"
_DISPUTED = ("PNG", "WEBP")  # formats in which some viewers obey EXIF and others do not
LYING = (5, 6, 7, 8)  # orientations that swap width and height
_UNDO = {  # EXIF orientation -> how to undo it
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def orientation(picture: ImageFile) -> int:
    """EXIF orientation of a loaded frame; 1, upright, if the EXIF is broken, as viewers take it.

    Of the EXIF alone: no viewer looks for it in XMP or in comments, as Pillow's `getexif` does.
    """
    try:
        if picture.format == "TIFF":
            return int(picture.tag_v2.get(Tag.Orientation, UPRIGHT))  # type: ignore[attr-defined]
        exif = PIL.Image.Exif()
        exif.load(picture.info.get("exif", b""))
        return int(exif.get(Tag.Orientation, UPRIGHT))
    except FOREIGN:
        return UPRIGHT


def ways(
    frame: PIL.Image.Image, orientation: int, form: str | None
) -> Iterator[tuple[str, PIL.Image.Image]]:
    """The picture as it is to be held, and as it lies in the file where viewers disagree."""
    undo = _UNDO.get(orientation)
    yield "", frame if undo is None else frame.transpose(undo)
    if undo is not None and form in _DISPUTED:
        yield NOT_TURNED, frame
