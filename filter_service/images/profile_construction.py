"""Builds ICC colour profiles from primaries and a transfer curve.

A profile made here is read by the same library as those that files bring along.
"""

import struct
from collections.abc import Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Chromaticities = tuple[float, ...]  # x and y of white, red, green and blue
Curve = tuple[float, ...]  # a gamma, or as ICC's parametric curves have them: g, a, b, c, d

D50 = np.array([0.9642, 1.0, 0.8249])  # the white of every profile
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
D65 = (0.3127, 0.3290)
_C = (0.310, 0.316)

SRGB: Chromaticities = (*D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)
SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_VIDEO: Curve = (2.4,)  # of the screen: BT.1886

# ITU-T H.273, as in PNG's cICP and AVIF's nclx.
PRIMARIES: Mapping[int, Chromaticities] = {
    1: SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
CURVES: Mapping[int, Curve] = {
    1: _VIDEO,
    4: (2.2,),
    5: (2.8,),
    6: _VIDEO,
    8: (1.0,),
    13: SRGB_CURVE,
    14: _VIDEO,
    15: _VIDEO,
}
HDR = (16, 18)  # PQ and HLG


@cache
def srgb() -> bytes:
    """What everything is converted to."""
    return profile(SRGB, SRGB_CURVE)


def profile(primaries: Chromaticities, *curves: Curve) -> bytes:
    """An ICC profile of these primaries and one curve, or one for each.

    Raises ArithmeticError or ValueError for what are no colours.
    """
    white, *ends = (_xyz(x, y) for x, y in zip(primaries[::2], primaries[1::2], strict=True))
    columns = np.stack(ends, axis=1)  # (3 of X, Y and Z, 3 primaries)
    try:
        columns = _adaptation(white) @ (columns * np.linalg.solve(columns, white))
    except np.linalg.LinAlgError as error:
        raise ValueError("its primaries lie on one line") from error
    return _profile(columns, curves if len(curves) == 3 else curves * 3)


def _profile(columns: Matrix, curves: tuple[Curve, ...]) -> bytes:
    tags = {b"desc": _text("stated by the file"), b"wtpt": _xyz_tag(D50)}
    for letter, column, curve in zip("rgb", columns.T, curves, strict=True):
        tags[f"{letter}XYZ".encode()] = _xyz_tag(column)
        tags[f"{letter}TRC".encode()] = _curve_tag(curve)
    table, bodies = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        table += struct.pack(">4sII", name, start + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    return _header(start + len(bodies)) + struct.pack(">I", len(tags)) + table + bodies


def _header(size: int) -> bytes:
    # Version 2: from version 4 on the library would move the black point as it sees fit.
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(*D50)
    return head.ljust(128, b"\0")


def _adaptation(white: Matrix) -> Matrix:
    """From what looks white under this light to what does under D50, after Bradford: (3, 3)."""
    scale = (_BRADFORD @ D50) / (_BRADFORD @ white)
    return np.asarray(np.linalg.inv(_BRADFORD) @ (scale[:, None] * _BRADFORD))


def _xyz(x: float, y: float) -> Matrix:
    return np.array([x / y, 1.0, (1 - x - y) / y])


def _text(name: str) -> bytes:
    text = name.encode() + b"\0"
    return b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)


def _xyz_tag(value: Matrix) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*value)


def _curve_tag(curve: Curve) -> bytes:
    kind = 0 if len(curve) == 1 else 3
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + _fixed(*curve)


def _fixed(*values: float) -> bytes:
    """ICC's numbers: 16 bits before the point, and 16 behind."""
    if max(map(abs, values)) >= 2**15:
        raise ValueError("its numbers are too large")
    return struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))
