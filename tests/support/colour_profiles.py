"""Builds ICC colour profiles by hand: RGB, grey and CMYK."""

import struct
from functools import cache

import numpy as np
import numpy.typing as npt

D50 = (0.9642, 1.0, 0.8249)
D65_TO_D50 = np.array(
    [[1.0478, 0.0229, -0.0501], [0.0295, 0.9905, -0.0171], [-0.0092, 0.0150, 0.7521]]
)
SRGB_XYZ = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
P3_XYZ = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
ADOBE_XYZ = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])
PROPHOTO_XYZ = np.array([[0.7977, 0.1352, 0.0313], [0.2880, 0.7119, 0.0001], [0, 0, 0.8249]])
Curve = tuple[float, ...]  # gamma alone, or as parametric curve type 3 has them: g, a, b, c, d
SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def profile(columns: npt.NDArray[np.float64], curve: Curve, name: str = "made") -> bytes:
    """An RGB profile of three primaries, one column of XYZ under D50 each, and one curve."""
    tags = {b"desc": _text(name), b"wtpt": _xyz(D50)}
    for letter, column in zip("rgb", columns.T, strict=True):
        tags[f"{letter}XYZ".encode()] = _xyz(tuple(column))
        tags[f"{letter}TRC".encode()] = _curve(curve)
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    tags = {b"desc": _text("grey"), b"wtpt": _xyz(D50), b"kTRC": _curve((gamma,))}
    return _profile(b"mntr", b"GRAY", b"XYZ ", tags)


@cache
def cmyk_profile() -> bytes:
    """Inks unlike the naive ones: their red is duller, their black is grey."""
    at = np.linspace(0, 1, 5)
    c, m, y, k = np.meshgrid(at, at, at, at, indexing="ij")
    light = np.stack([1 - 0.9 * c, 1 - 0.7 * m, 1 - 0.8 * y], axis=-1) * (1 - 0.85 * k)[..., None]
    lab = _lab(light.reshape(-1, 3) @ SRGB_XYZ.T)  # (625, 3)
    steps = np.stack([lab[:, 0] * 652.80, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256], -1)
    table = steps.clip(0, 65535).round().astype(">u2").tobytes()
    line = np.array([0, 65535], dtype=">u2").tobytes()
    head = b"mft2" + bytes(4) + bytes([4, 3, 5, 0])
    head += struct.pack(">9i", *(65536 * int(i % 4 == 0) for i in range(9)))
    lut = head + struct.pack(">HH", 2, 2) + line * 4 + table + line * 3
    return _profile(
        b"prtr", b"CMYK", b"Lab ", {b"desc": _text("inks"), b"wtpt": _xyz(D50), b"A2B0": lut}
    )


def _lab(xyz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    t = xyz / np.array(D50)
    f = np.where(t > 216 / 24389, np.cbrt(t), (t * 24389 / 27 + 16) / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=-1
    )


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, bodies, at = b"", b"", 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        table += struct.pack(">4sII", name, at + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    size = at + len(bodies)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, kind, space, connection)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _s15(*D50)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + bodies


def _text(name: str) -> bytes:
    text = name.encode() + b"\0"
    return b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)


def _xyz(value: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + _s15(*value)


def _s15(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))


def _curve(curve: Curve) -> bytes:
    if len(curve) == 1:
        return b"curv" + bytes(4) + struct.pack(">IH", 1, round(curve[0] * 256)) + bytes(2)
    return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _s15(*curve)


PROFILES = {
    "sRGB": profile(SRGB_XYZ, SRGB_CURVE, "sRGB"),
    "P3": profile(P3_XYZ, SRGB_CURVE),
    "Adobe RGB": profile(ADOBE_XYZ, (563 / 256,)),
    "ProPhoto": profile(PROPHOTO_XYZ, (1.8,)),
    "linear": profile(SRGB_XYZ, (1.0,)),
    "exchanged": profile(SRGB_XYZ[:, [1, 0, 2]], SRGB_CURVE),
}
