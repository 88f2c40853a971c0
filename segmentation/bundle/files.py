"""What of a bundle is read, and that it is what was pinned. Nothing here executes anything of a bundle.

Every file is read once: the bytes that were hashed are the bytes that are used, so that nobody can swap a file in between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segmentation.bundle.spec import BundleSpec
from segmentation.contract import ModelRefused, ModelUnverified

CONFIG_FILE_MAX_BYTES = 1_000_000
CONFIG_FILES_MAX = 200
WEIGHTS_MAX_BYTES = 4 * 2**30
WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth")
INFERENCE_FILES = ("inference.json", "inference.yaml", "inference.yml")


@dataclass(frozen=True, slots=True, eq=False)
class BundleFiles:
    """A bundle's verified content: the parsed `metadata.json` and inference configuration, and the weights' bytes."""

    root: Path
    metadata: dict[str, Any]
    inference: dict[str, Any]
    weights: bytes
    weights_suffix: str


@dataclass(frozen=True, slots=True)
class BundlePin:
    """What `rtplan models pin` tells an administrator of a bundle."""

    path: Path
    weights_file: str
    weights_sha256: str
    config_sha256: str
    version: str
    channels: tuple[str, ...]


def read_verified(spec: BundleSpec) -> BundleFiles:
    """The files of a bundle whose hashes and version are as pinned.

    Raises ModelUnverified when something is missing or differs, ModelRefused for a link that leads out of the bundle, a
    file beyond the size limits, and weights in a format that may execute code.
    """
    root = _root(spec.path)
    configs = _configs(root)
    _same("configuration", _hash_of(configs), spec.config_sha256)
    metadata = _parsed(configs, "configs/metadata.json")
    found = str(metadata.get("version"))
    if found != spec.version:
        raise ModelUnverified(f"metadata.json says version {found}, the settings say {spec.version}")
    weights = _weights(root, spec.weights_file)
    _same(spec.weights_file, hashlib.sha256(weights).hexdigest(), spec.weights_sha256)
    return BundleFiles(root, metadata, _parsed(configs, inference_file(configs)), weights, Path(spec.weights_file).suffix)


def pin(path: Path) -> BundlePin:
    """Hashes of a bundle as it lies there. Raises as `read_verified`."""
    root = _root(path)
    configs = _configs(root)
    inference_file(configs)
    metadata = _parsed(configs, "configs/metadata.json")
    candidates = [root / "models" / f"model{suffix}" for suffix in WEIGHTS_SUFFIXES]
    present = [file for file in candidates if file.is_file()]
    if not present:
        raise ModelUnverified(f"{root}: none of {', '.join(f'models/{file.name}' for file in candidates)}")
    weights_file = present[0].relative_to(root).as_posix()
    return BundlePin(
        path=root,
        weights_file=weights_file,
        weights_sha256=hashlib.sha256(_weights(root, weights_file)).hexdigest(),
        config_sha256=_hash_of(configs),
        version=str(metadata.get("version")),
        channels=channel_names(metadata),
    )


def config_sha256(path: Path) -> str:
    """SHA-256 over names and contents of everything in a bundle's `configs` folder. Raises as `read_verified`."""
    return _hash_of(_configs(_root(path)))


def channel_names(metadata: dict[str, Any]) -> tuple[str, ...]:
    """Names of the network's output channels in their order. Raises ModelUnverified when metadata.json does not say them."""
    try:
        output = next(iter(metadata["network_data_format"]["outputs"].values()))
        names = {int(channel): str(name) for channel, name in output["channel_def"].items()}
        count = int(output["num_channels"])
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ModelUnverified(
            "metadata.json does not name the output channels (network_data_format, channel_def)"
        ) from error
    if sorted(names) != list(range(count)) or len(set(names.values())) != count:
        raise ModelUnverified(f"metadata.json: {count} channels, and channel_def does not name each of them once")
    return tuple(names[channel] for channel in range(count))


def inference_file(configs: dict[str, bytes]) -> str:
    """Name of the one inference configuration. Raises ModelUnverified when there is none or more than one."""
    found = [f"configs/{name}" for name in INFERENCE_FILES if f"configs/{name}" in configs]
    if len(found) != 1:
        raise ModelUnverified(f"{len(found)} of {', '.join(INFERENCE_FILES)} in configs, expected one")
    return found[0]


def _root(path: Path) -> Path:
    try:
        root = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ModelUnverified(f"{path} is not there") from error
    if not root.is_dir():
        raise ModelUnverified(f"{path} is not a folder")
    return root


def _configs(root: Path) -> dict[str, bytes]:
    """Contents of every file of `configs`, by its path in the bundle, in the order of the names."""
    found: dict[str, bytes] = {}
    for file in _files_below(root / "configs"):
        if len(found) == CONFIG_FILES_MAX:
            raise ModelRefused(f"more than {CONFIG_FILES_MAX} files in configs")
        found[file.relative_to(root).as_posix()] = _read(file, root, CONFIG_FILE_MAX_BYTES)
    if not found:
        raise ModelUnverified(f"{root} has no configs folder, or an empty one: not a MONAI bundle")
    return dict(sorted(found.items()))


def _files_below(folder: Path) -> Iterator[Path]:
    # Links are followed by nobody here: `rglob` would not tell one that leads out.
    if folder.is_symlink():
        raise ModelRefused(f"{folder.name} is a link")
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _files_below(path)
        else:
            yield path


def _read(file: Path, root: Path, max_bytes: int) -> bytes:
    try:
        real = file.resolve(strict=True)
        if not real.is_relative_to(root):
            raise ModelRefused(f"{file.relative_to(root)} is a link that leaves the bundle")
        if not real.is_file():
            raise ModelRefused(f"{file.relative_to(root)} is not a plain file")
        with real.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except (OSError, RuntimeError) as error:
        raise ModelUnverified(f"{file.relative_to(root)} cannot be read: {error.__class__.__name__}") from error
    if len(data) > max_bytes:
        raise ModelRefused(f"{file.relative_to(root)} has more than {max_bytes} bytes")
    return data


def _weights(root: Path, name: str) -> bytes:
    file = root / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ModelRefused(f"{name} is not a path inside the bundle")
    if file.suffix not in WEIGHTS_SUFFIXES:
        raise ModelRefused(f"{name}: weights are read from {', '.join(WEIGHTS_SUFFIXES)} only")
    return _read(file, root, WEIGHTS_MAX_BYTES)


def _hash_of(files: dict[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, data in files.items():
        # Hashes of fixed length keep one file's end from being taken for the next one's name.
        total.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(data).digest())
    return total.hexdigest()


def _same(what: str, found: str, pinned: str) -> None:
    if found != pinned:
        raise ModelUnverified(f"{what} has SHA-256 {found}, pinned is {pinned}")


def _parsed(configs: dict[str, bytes], name: str) -> dict[str, Any]:
    """JSON or YAML as plain data. YAML's own tags, which could build objects, are not known to this reader."""
    if name not in configs:
        raise ModelUnverified(f"{name} is missing")
    try:
        text = configs[name].decode("utf-8")
        data = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ModelUnverified(f"{name} cannot be parsed") from error
    if not isinstance(data, dict):
        raise ModelUnverified(f"{name} is not a mapping")
    return data
