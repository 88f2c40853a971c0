"""Speed of a whole segmentation: python -m benchmarks.bench_segmentation [--patients DIR] [--device cpu]

A head-and-neck CT of 128 x 128 x 128 voxels of 2.5 x 3.9 x 3.9 mm, from the first patient of DIR with so many slices, else
from the sample phantom, is outlined by a new process, as a command would: start of Python, imports, verification of the
weights, network, clean-up, contours on the CT's grid. Wall and processor time and the peak of the resident set are the whole
process's; the share outside the network is what its network's calls did not take. The median of the rounds counts.
Writes benchmarks/results/segmentation_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results_file import write_results
from sample_data.head_neck import head_neck
from segmentation.models.head_neck_oar import SHIPPED
from segmentation.preprocess import to_working_grid

SIDE = 128
SPACING_ZYX_MM = (2.5, 3.9, 3.9)
LIMIT_S, LIMIT_BYTES = 20.0, 3e9
LIMIT_GPU_S = 0.7


# The network's calls are timed from within; the model is loaded here as the first call of `segment` would.
CHILD = """
import json, sys, time
from pathlib import Path
import numpy as np
from segmentation.contract import CtVolume
from segmentation.models.head_neck_oar import HeadNeckOar, _loaded
file, folder, device, warm = sys.argv[1:5]
with np.load(file) as ct:
    volume = CtVolume.standard(ct["hu"], tuple(ct["spacing"]))
network = _loaded(Path(folder), device).network
spent, began = [0.0], [0.0]
def settle():
    if device != "cpu":
        import torch
        torch.cuda.synchronize()
    return time.perf_counter()
network.register_forward_pre_hook(lambda *_: began.__setitem__(0, settle()))
network.register_forward_hook(lambda *_: spent.__setitem__(0, spent[0] + settle() - began[0]))
model = HeadNeckOar(Path(folder))
found = model.segment(volume, device=device)
first, again = spent[0], None
if warm == "warm":
    start = time.perf_counter()
    model.segment(volume, device=device)
    again = time.perf_counter() - start
print(json.dumps({"network_s": first, "warm_s": again, "voxels": {n: int(m.sum()) for n, m in found.masks.items()}}))
"""


def ct(folder: Path | None) -> tuple[NDArray[np.int16], str]:
    """The CT (z, y, x) HU and where it is from: resampled, and cut or filled up with air around its centre."""
    if folder is None:
        phantom = head_neck()
        hu, spacing, source = phantom.hu, phantom.grid.spacing_zyx_mm, "sample phantom"
    else:
        path = next(iter(sorted(folder.rglob("*.npz"))))
        with np.load(path) as file:
            first, last = file["body_z"]
            hu, spacing, source = file["ct"][first : last + 1], tuple(float(v) for v in file["spacing"]), path.stem
    resampled = np.rint(to_working_grid(hu, spacing, SPACING_ZYX_MM).hu).astype(np.int16)
    out = np.full((SIDE, SIDE, SIDE), -1000, np.int16)
    places, parts = [], []
    for n in resampled.shape:
        size = min(n, SIDE)
        places.append(slice((SIDE - size) // 2, (SIDE - size) // 2 + size))
        parts.append(slice((n - size) // 2, (n - size) // 2 + size))
    out[tuple(places)] = resampled[tuple(parts)]
    return out, source


def one_round(file: Path, folder: Path, device: str) -> dict[str, Any]:
    """Wall and processor seconds and peak memory of a new process that outlines the CT."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(file), str(folder), device]
    done = subprocess.run([*command, "warm" if device != "cpu" else ""], capture_output=True, text=True, check=False)
    wall_s = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    inner = json.loads(done.stdout.splitlines()[-1])
    return inner | {
        "wall_s": wall_s,
        "processor_s": cpu_s,
        "peak_bytes": 1024 * after.ru_maxrss,  # of the largest child so far, which is this one or its like
        "outside_network": 1 - inner["network_s"] / wall_s,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=Path, help="folder of npz files of the OpenKBP format")
    parser.add_argument("--folder", type=Path, default=SHIPPED, help="the model's files")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    hu, source = ct(args.patients)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "ct.npz"
        np.savez(file, hu=hu, spacing=np.array(SPACING_ZYX_MM))
        rounds = [one_round(file, args.folder, args.device) for _ in range(args.rounds)]
    keys = ("wall_s", "processor_s", "network_s", "outside_network", "peak_bytes")
    figures: dict[str, Any] = {key: float(np.median([r[key] for r in rounds])) for key in keys}
    figures["warm_s"] = None if args.device == "cpu" else float(np.median([r["warm_s"] for r in rounds]))
    limits = {"wall_s": LIMIT_S, "peak_bytes": LIMIT_BYTES} if args.device == "cpu" else {"warm_s": LIMIT_GPU_S}
    met = {key: figures[key] <= limit for key, limit in limits.items()}
    print(f"{source}, {args.device}: {figures['wall_s']:.1f} s wall, {figures['processor_s']:.1f} s processor,")
    print(f"{figures['network_s']:.1f} s in the network ({100 * figures['outside_network']:.0f} % outside it),")
    print(f"{figures['peak_bytes'] / 1e9:.2f} GB; limits {limits}: {met}")
    shape = {"ct": source, "shape_zyx": [SIDE] * 3, "spacing_zyx_mm": list(SPACING_ZYX_MM), "device": args.device}
    load = {"load_before": os.getloadavg()[0], "rounds": args.rounds}
    name = "segmentation_speed" if args.device == "cpu" else "segmentation_speed_gpu"
    print(write_results(name, shape | load | figures | {"limits": limits, "met": met, "voxels": rounds[0]["voxels"]}))


if __name__ == "__main__":
    main()
