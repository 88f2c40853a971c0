"""A bundle's sliding windows, blended without ever holding all channels of the whole image.

MONAI's SlidingWindowInferer keeps every channel of the whole image: 105 float32 channels of a chest at 1.5 mm are 7 GB, of a
CT of 512 x 512 x 300 they would be 33 GB. Its windows lie in rows along each axis, so once a row along the longest axis is
passed, the voxels before the next are done. A ring of one window's length along that axis holds what is not: for that chest
2 GB. Windows, weights and sums are those of the inferer; only the order of the sums differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from segmentation.contract import ModelRefused, OutputInvalid

WHOLE_OUTPUT_MAX_BYTES = 2 * 2**30
CHUNK_MAX_BYTES = 64 * 2**20


def rolling_axis(shape: tuple[int, ...]) -> int:
    """The longest of three axes: the ring across it is the smallest."""
    return max(range(3), key=lambda axis: shape[axis])


def checked(network: Any, n_channels: int) -> Callable[[Any], Any]:
    """The network as a function of windows (b, c, x, y, z) to float32 (b, n_channels, x, y, z).

    Raises OutputInvalid for another shape and for values that are not finite.
    """
    import torch

    def predict(windows: Any, *extra: Any) -> Any:
        out = network(windows, *extra)
        if not isinstance(out, torch.Tensor) or out.ndim != 5:
            raise OutputInvalid(f"the network's output is a {type(out).__name__}, not one image")
        if out.shape[1] != n_channels:
            raise OutputInvalid(f"the network has {out.shape[1]} output channels, its metadata names {n_channels}")
        if out.shape[2:] != windows.shape[2:]:
            raise OutputInvalid(f"a window of {tuple(windows.shape[2:])} voxels came out as {tuple(out.shape[2:])}")
        if not bool(torch.isfinite(out).all()):
            raise OutputInvalid("the network's output is not finite")
        return out.float()

    return predict


def blended(image: Any, predict: Callable[[Any], Any], inferer: Any, n_channels: int) -> Iterator[tuple[int, Any]]:
    """Network output of an image (1, c, x, y, z), piece by piece along its longest axis.

    Each piece is the index where it begins and a tensor (n_channels, k, ., .): the longest axis, then the others in order.
    Raises ModelRefused for another kind of inferer on an image whose whole output would be too large.
    """
    from monai.inferers.inferer import SlidingWindowInferer, SlidingWindowInfererAdapt

    shape = tuple(image.shape[2:])
    if type(inferer) in (SlidingWindowInferer, SlidingWindowInfererAdapt) and not inferer.with_coord:
        yield from _ring(image, predict, inferer, n_channels)
        return
    size = 4 * n_channels * image[0, 0].numel()
    if size > WHOLE_OUTPUT_MAX_BYTES:
        raise ModelRefused(
            f"{type(inferer).__name__} holds all {n_channels} channels of {shape} voxels at once, {size / 2**30:.1f} GB"
        )
    whole = inferer(image, predict)
    if not isinstance(whole, type(image)) or tuple(whole.shape) != (1, n_channels, *shape):
        raise OutputInvalid("the inferer's output is not on the image's grid")
    yield from _pieces(0, whole[0].movedim(1 + rolling_axis(shape), 1))


def _pieces(start: int, values: Any) -> Iterator[tuple[int, Any]]:
    """Cut along the second axis, so that what is computed from a piece stays small."""
    rows = max(1, CHUNK_MAX_BYTES // max(1, 4 * values[:, 0].numel()))
    for first in range(0, values.shape[1], rows):
        yield start + first, values[:, first : first + rows]


def _ring(image: Any, predict: Callable[[Any], Any], inferer: Any, n_channels: int) -> Iterator[tuple[int, Any]]:
    import torch

    axis = rolling_axis(tuple(image.shape[2:]))
    wide, before, roi = _padded(image, inferer)
    shape = tuple(wide.shape[2:])
    weight = _weight(roi, inferer, wide.device).movedim(axis, 0)
    others = [side for side in range(3) if side != axis]
    ring = torch.zeros((n_channels, roi[axis], *(shape[side] for side in others)), device=wide.device)
    count = torch.zeros((1, *ring.shape[1:]), device=wide.device)
    keep = tuple(slice(before[side], before[side] + image.shape[2 + side]) for side in others)
    low, high = before[axis], before[axis] + image.shape[2 + axis]

    def finished(first: int, stop: int) -> Iterator[tuple[int, Any]]:
        # The padding is cut off again.
        begin = max(first, low)
        rows = torch.arange(begin, max(begin, min(stop, high)), device=wide.device)
        step = max(1, CHUNK_MAX_BYTES // max(1, 4 * ring[:, 0].numel()))
        for some in torch.split(rows, step):
            place = some % roi[axis]
            if len(some):
                yield int(some[0]) - low, (ring[:, place] / count[:, place])[(slice(None), slice(None), *keep)]
        gone = torch.arange(first, stop, device=wide.device) % roi[axis]
        ring[:, gone], count[:, gone] = 0.0, 0.0

    done = 0
    for start, row in groupby(_windows(shape, roi, inferer, axis), key=lambda window: int(window[axis].start)):
        yield from finished(done, start)
        done = start
        place = torch.arange(start, start + roi[axis], device=wide.device) % roi[axis]
        for batch in _batches(list(row), int(inferer.sw_batch_size)):
            out = predict(torch.cat([wide[(slice(None), slice(None), *window)] for window in batch]))
            for window, values in zip(batch, out, strict=True):
                part = (slice(None), slice(None), *(window[side] for side in others))
                ring[part].index_add_(1, place, values.movedim(1 + axis, 1) * weight)
                count[part].index_add_(1, place, weight[None])
    yield from finished(done, shape[axis])


def _padded(image: Any, inferer: Any) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """The image as large as a window at least, what was put before it on each axis, and the window's size."""
    from monai.utils.misc import fall_back_tuple
    from torch.nn import functional

    size = tuple(image.shape[2:])
    roi = tuple(int(n) for n in fall_back_tuple(inferer.roi_size, size))
    lack = [max(n - have, 0) for n, have in zip(roi, size, strict=True)]
    if not any(lack):
        return image, (0, 0, 0), roi
    pad = [side for n in reversed(lack) for side in (n // 2, n - n // 2)]
    mode = str(getattr(inferer.padding_mode, "value", inferer.padding_mode))
    fill = {"value": inferer.cval} if mode == "constant" else {}
    return functional.pad(image, pad, mode=mode, **fill), tuple(n // 2 for n in lack), roi


def _windows(shape: tuple[int, ...], roi: tuple[int, ...], inferer: Any, axis: int) -> list[tuple[slice, ...]]:
    """The inferer's windows, in rows along an axis."""
    from monai.data.utils import dense_patch_slices
    from monai.utils.misc import ensure_tuple_rep

    overlap = ensure_tuple_rep(inferer.overlap, 3)
    step = tuple(
        n if n == size else max(1, int(n * (1 - share))) for n, size, share in zip(roi, shape, overlap, strict=True)
    )
    return sorted(dense_patch_slices(shape, roi, step), key=lambda window: int(window[axis].start))


def _weight(roi: tuple[int, ...], inferer: Any, device: Any) -> Any:
    from monai.data.utils import compute_importance_map

    return compute_importance_map(roi, mode=inferer.mode, sigma_scale=inferer.sigma_scale, device=device)


def _batches(windows: list[Any], size: int) -> Iterator[list[Any]]:
    for first in range(0, len(windows), size):
        yield windows[first : first + size]
