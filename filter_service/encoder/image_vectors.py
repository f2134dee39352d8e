"""Computes the vectors of many images, decoded in threads ahead of the model."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from filter_service.encoder.encoder import Encoder
from filter_service.encoder.view_pixels import pixels_of, views_of
from filter_service.errors import ImageError
from filter_service.images import Limits, decode, reserved
from filter_service.policy.coverage import Coverage
from filter_service.scoring import FloatArray

THREADS = 4  # that decode
AHEAD = 16  # images decoded before their turn


def image_vectors(
    sources: Iterable[Callable[[], bytes]],
    encoder: Encoder,
    limits: Limits,
    coverage: Coverage = Coverage.WHOLE,
) -> Iterator[FloatArray | ImageError]:
    """The unit vectors of every view of each image in float32, (views, d), or why there are none.

    One for each source, in order; a source gives the bytes of one file, in any thread.
    """

    def pixels(source: Callable[[], bytes]) -> Tensor:
        data = source()
        with reserved(data, limits):
            image = decode(data, limits)
            return pixels_of(image, encoder, views_of(image, encoder, coverage))

    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[Tensor]] = deque()
        for source in sources:
            waiting.append(pool.submit(pixels, source))
            if len(waiting) > AHEAD:
                yield _encoded(waiting.popleft(), encoder)
        while waiting:
            yield _encoded(waiting.popleft(), encoder)


def _encoded(future: "Future[Tensor]", encoder: Encoder) -> FloatArray | ImageError:
    try:
        return encoder.encode(future.result())  # (views, 3, h, w) -> (views, d)
    except ImageError as error:
        return error
