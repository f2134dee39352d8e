"""Which way up a picture is."""

import PIL.Image
from PIL.ExifTags import Base as Tag
from PIL.Image import Transpose
from PIL.ImageFile import ImageFile

from filter_service.images.foreign import FOREIGN

UPRIGHT = 1
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


def upright(frame: PIL.Image.Image, orientation: int) -> PIL.Image.Image:
    """The picture as it is to be held."""
    undo = _UNDO.get(orientation)
    return frame if undo is None else frame.transpose(undo)
