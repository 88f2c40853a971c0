"""The phantoms as training files (okbp-npz-1), so that the contouring model knows what `make demo` shows it.

`python -m sample_data.training_set DIR`. The training varies their shape and contrast.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from rtplan.library.names import tg263_name
from sample_data.head_neck import head_neck
from sample_data.phantom import Phantom
from sample_data.tg119 import c_shape, multi_target


def write_training_file(phantom: Phantom, path: Path) -> None:
    """One phantom with its organs under their TG-263 names; targets are left out."""
    mask, names = np.zeros(phantom.grid.shape_zyx, np.uint16), []
    for source, organ in phantom.masks.items():
        name = tg263_name(source)
        if name is not None:
            mask |= organ.astype(np.uint16) << len(names)
            names.append(name)
    np.savez_compressed(
        path,
        ct=phantom.hu,
        mask=mask,
        bit_names=np.array(names),
        spacing=np.array(phantom.grid.spacing_zyx_mm),
        origin=np.array(phantom.grid.origin_xyz_mm),
        body_z=np.array([0, len(mask) - 1], np.int16),
        flags=np.array(["phantom"]),
    )


def main(folder: Path) -> None:
    """Write every phantom."""
    folder.mkdir(parents=True, exist_ok=True)
    for phantom in (head_neck(), c_shape(), multi_target()):
        write_training_file(phantom, folder / f"{phantom.name}.npz")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
