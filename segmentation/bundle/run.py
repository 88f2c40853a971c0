"""A verified bundle on a CT: preprocessing, network, labels, and back to the CT's voxels with its doubts."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation.bundle.files import BundleFiles
from segmentation.bundle.geometry import Box, Grid, WayBack, ras_affine, ras_view, way_back
from segmentation.bundle.load import OutputRule, Parts, built, refusing
from segmentation.bundle.reduce import Answer, EachForItself, OneLabel
from segmentation.bundle.spec import NameTable
from segmentation.bundle.windows import blended, checked, rolling_axis
from segmentation.contract import CtVolume, Doubt, ModelRefused, Segmentation


def segmented(
    files: BundleFiles, channels: tuple[str, ...], names: NameTable, volume: CtVolume, device: str
) -> Segmentation:
    """Run a bundle whose files were verified. Raises ModelUnverified, ModelRefused, DeviceMissing, OutputInvalid.

    Peak memory beside the CT: one float32 copy of it and its preprocessed image, one window's length of all channels along
    the image's longest axis (`windows`), and the masks: each touches only the pages of its own box.
    """
    from segmentation.device import torch_device

    placed = str(torch_device(device))
    with warnings.catch_warnings():
        # Deprecations inside a bundle's own configuration are nothing that who segments can act on.
        warnings.simplefilter("ignore")
        parts = built(files, placed)
        image, grids = _preprocessed(parts, volume)
        structures = [tuple(channels.index(part) for part in union) for union in names.channels.values()]
        answer = _answered(parts, image, structures, len(channels), placed)
    axis = rolling_axis(grids[-1].shape)
    order = (axis, *(side for side in range(3) if side != axis))
    view = Grid(ras_affine(volume), ras_view(volume, volume.hu).shape)
    way = way_back(view, grids[:-1], grids[-1].standing(order))
    return _on_the_ct(answer, way, names, volume, _general_doubts(parts.rule, channels, names), parts.rule.exclusive)


def _preprocessed(parts: Parts, volume: CtVolume) -> tuple[Any, list[Grid]]:
    """The image (c, x, y, z) that the network sees, and the grids that it lay on step by step, the last one its own."""
    import torch
    from monai.data.meta_tensor import MetaTensor
    from monai.transforms.compose import Compose
    from monai.utils.enums import SpaceKeys

    voxels = torch.from_numpy(np.ascontiguousarray(ras_view(volume, volume.hu), np.float32))
    meta = {"original_channel_dim": 0 if parts.channel_first else "no_channel", "space": SpaceKeys.RAS}
    loaded = MetaTensor(voxels[None] if parts.channel_first else voxels, torch.from_numpy(ras_affine(volume)), meta)
    stages: list[Grid] = []

    def watched(data: dict[str, Any]) -> dict[str, Any]:
        image = data[parts.image_key]
        if isinstance(image, MetaTensor) and image.ndim >= 3:
            stages.append(_grid(image))
        return data

    with refusing("its preprocessing of this CT"), torch.inference_mode():
        steps = [step for one in parts.preprocessing.transforms for step in (one, watched)]
        image = Compose(steps)({parts.image_key: loaded})[parts.image_key]
    if not isinstance(image, MetaTensor) or image.ndim != 4 or image.pending_operations:
        raise ModelRefused("its preprocessing does not keep the image's geometry")
    if min(image.shape) < 1 or not bool(torch.isfinite(image).all()):
        raise ModelRefused("its preprocessing makes nothing that a network could see of this CT")
    return image.as_tensor().float(), [*stages, _grid(image)]


def _grid(image: Any) -> Grid:
    return Grid(np.asarray(image.affine.cpu().numpy(), np.float64), tuple(image.shape[-3:]))


def _answered(parts: Parts, image: Any, structures: list[tuple[int, ...]], n_channels: int, device: str) -> Answer:
    import torch

    shape = tuple(image.shape[1:])
    axis = rolling_axis(shape)
    standing = (shape[axis], *(n for side, n in enumerate(shape) if side != axis))
    if parts.rule.exclusive and n_channels < 2:
        raise ModelRefused("a softmax over one channel finds it everywhere")
    answer: Answer
    if parts.rule.exclusive:
        answer = OneLabel(structures, n_channels, standing)
    else:
        answer = EachForItself(structures, parts.rule.threshold, standing)
    with refusing("its network on this CT"), torch.inference_mode():
        batch = image[None].to(torch.device(device))
        for start, output in blended(batch, checked(parts.network, n_channels), parts.inferer, n_channels):
            answer.take(start, output)
    return answer


def _on_the_ct(
    answer: Answer, way: WayBack, names: NameTable, volume: CtVolume, doubts: list[Doubt], one_certainty: bool
) -> Segmentation:
    masks: dict[str, NDArray[np.bool_]] = {}
    confidence: dict[str, float] = {}
    certainty: dict[str, NDArray[np.uint8]] = {}
    middle_x: dict[str, float] = {}
    for number, (name, union) in enumerate(names.channels.items()):
        placed = _placed(answer, number, way, volume)
        if placed is None:
            doubts.append(Doubt("ORGAN_NOT_FOUND", name, "info", f"the model found no voxel of {name} in this CT"))
            continue
        masks[name], middle_x[name] = placed
        confidence[name] = min(1.0, answer.expected_dice(number))
        shared = next(iter(certainty.values()), None) if one_certainty else None
        certainty[name] = shared if shared is not None else _certainty(answer.certainty(number), way, volume)
        absent = [part for part, found in zip(union, answer.found(number), strict=True) if not found]
        if absent:
            text = f"{name} is made of {len(union)} parts, and {', '.join(absent)} was not found"
            doubts.append(Doubt("PART_NOT_FOUND", name, "flag", text))
    doubts += _swapped_sides(middle_x)
    doubts += _remarks(names, set(masks))
    return Segmentation(masks, confidence, certainty, tuple(doubts))


def _placed(answer: Answer, number: int, way: WayBack, volume: CtVolume) -> tuple[NDArray[np.bool_], float] | None:
    """A structure's mask on the CT's array, and its middle along the view's x (to the right). None when it is nowhere."""
    box = answer.box(number)
    if box is None:
        return None
    where = way.box_of(box)
    inside = way.fetched(answer.mask(number), box, where)
    if not inside.any():
        return None
    # Zeros that nobody writes cost no memory, so that a hundred masks of a large CT do not add up.
    mask = np.zeros(volume.hu.shape, bool)
    ras_view(volume, mask)[where] = inside
    columns = inside.sum(axis=(1, 2))
    return mask, float(where[0].start + np.average(np.arange(len(columns)), weights=columns))


def _certainty(values: NDArray[np.uint8], way: WayBack, volume: CtVolume) -> NDArray[np.uint8]:
    """On the CT's own array; 0 where the network never looked."""
    out = np.zeros(volume.hu.shape, np.uint8)
    whole: Box = (slice(0, values.shape[0]), slice(0, values.shape[1]), slice(0, values.shape[2]))
    where = way.box_of(whole)
    ras_view(volume, out)[where] = way.fetched(values, whole, where)
    return out


def _general_doubts(rule: OutputRule, channels: tuple[str, ...], names: NameTable) -> list[Doubt]:
    text = "no ranges of volume, position and shape ship for this bundle: nobody but the reader checks its contours"
    doubts = [Doubt("MODEL_NOT_VALIDATED", None, "flag", text)]
    used = {part for union in names.channels.values() for part in union}
    unmapped = [name for name in channels if name not in used and name.casefold() != "background"]
    if unmapped:
        text = f"channels without a TG-263 name are left out: {', '.join(unmapped)}"
        doubts.append(Doubt("CHANNEL_UNMAPPED", None, "info", text))
    if rule.left_out:
        text = f"steps of the bundle's postprocessing that were not done: {', '.join(rule.left_out)}"
        doubts.append(Doubt("BUNDLE_STEP_LEFT_OUT", None, "flag", text))
    return doubts


def _swapped_sides(middle_x: dict[str, float]) -> list[Doubt]:
    """Of a pair, the left one lies to the left; if not, the image or the table is turned about."""
    doubts = []
    for name, left in middle_x.items():
        right = middle_x.get(f"{name[:-2]}_R") if name.endswith("_L") else None
        if right is not None and left >= right:
            for side in (name, f"{name[:-2]}_R"):
                text = f"{name} does not lie to the patient's left of {name[:-2]}_R"
                doubts.append(Doubt("SIDES_SWAPPED", side, "hold", text))
    return doubts


def _remarks(names: NameTable, found: set[str]) -> list[Doubt]:
    """What the table says of extents, one doubt for each remark."""
    texts = {
        remark: [n for n, r in names.remarks.items() if r == remark and n in found] for remark in names.remarks.values()
    }
    return [
        Doubt("DEFINITION_DIFFERS", which[0] if len(which) == 1 else None, "info", f"{', '.join(which)}: {remark}")
        for remark, which in texts.items()
        if which
    ]
