"""The bundled encoder in the screening precision of this run of the tests.

That is FILTER_SERVICE_PRECISION, as everywhere; without it the hardware decides, as it does for
whoever runs the service.
"""

from functools import cache

from filter_service.encoder import Encoder, load_encoder
from filter_service.settings import Settings


@cache
def bundled() -> Encoder:
    precision = Settings(_env_file=None).precision
    return load_encoder("bundled", device="cpu", precision=precision)
