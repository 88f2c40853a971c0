"""From a bundle's verified files to what runs: network, preprocessing, inferer, and how its output is meant.

This is where the configuration is executed. Only what segmenting needs is built of it: no data loader, handler, evaluator or
writer, and nothing under `initialize` and `run`.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from segmentation.bundle.files import BundleFiles
from segmentation.contract import ModelRefused, ModelUnverified, OutputInvalid

LOADERS = ("LoadImaged", "LoadImageD", "LoadImageDict")
ACTIVATIONS = ("Activationsd", "ActivationsD", "ActivationsDict")
DISCRETISERS = ("AsDiscreted", "AsDiscreteD", "AsDiscreteDict")
# What brings the answer back, writes it or moves it about: ours to do, and no part of the answer.
REPLACED = (
    *("Invertd", "InvertD", "InvertDict", "SaveImaged", "SaveImageD", "SaveImageDict"),
    *("EnsureTyped", "EnsureTypeD", "EnsureTypeDict", "ToDeviced", "ToDeviceD", "ToDeviceDict"),
)
DEFAULT_THRESHOLD = 0.5
STATE_KEYS = ("model", "state_dict")


@dataclass(frozen=True, slots=True, eq=False)
class OutputRule:
    """How output becomes labels: one label for each voxel (softmax), or each channel for itself (sigmoid, threshold).

    `left_out` names the bundle's own steps that are not done.
    """

    exclusive: bool
    threshold: float
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A bundle, built: a torch module in evaluation mode on the device, a MONAI inferer and a MONAI Compose."""

    network: Any
    inferer: Any
    preprocessing: Any
    image_key: str
    channel_first: bool
    rule: OutputRule


@contextmanager
def refusing(doing: str) -> Iterator[None]:
    """Whatever somebody else's code raises, as ModelRefused; our own verdicts as they are."""
    try:
        yield
    except (ModelUnverified, ModelRefused, OutputInvalid, MemoryError):
        raise
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0][:200]
        raise ModelRefused(f"{doing} failed: {type(error).__name__}: {first_line}") from error


def built(files: BundleFiles, device: str) -> Parts:
    """Everything needed to segment. Raises ModelRefused, or ModelUnverified for weights that are not the network's."""
    config = dict(files.inference)
    channel_first = _without_loader(config)
    _refuse_other_files(config)
    with refusing("its configuration"):
        from monai.bundle.config_parser import ConfigParser

        config["bundle_root"] = str(files.root)
        if "device" in config:
            config["device"] = f"$torch.device({device!r})"
        parser = ConfigParser(config)
        preprocessing = parser.get_parsed_content("preprocessing")
        keys = _first_keys(preprocessing)
        network = parser.get_parsed_content("network_def" if "network_def" in config else "network")
        inferer = parser.get_parsed_content("inferer")
        rule = _output_rule(parser, config)
    _refuse_chance(preprocessing)
    return Parts(_loaded(network, files, device), _placed(inferer, device), preprocessing, keys, channel_first, rule)


def _without_loader(config: dict[str, Any]) -> bool:
    """Put a placeholder for the LoadImaged at the beginning; returns whether it would have put channels first.

    The CT is in memory already; a reader of files is not even made.
    """
    try:
        transforms = list(config["preprocessing"]["transforms"])
        first = dict(transforms[0])
        name = first["_target_"].rsplit(".", 1)[-1]
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise ModelRefused("preprocessing is not a list of transforms in the configuration") from error
    if name not in LOADERS:
        raise ModelRefused(f"preprocessing begins with {name}, not with LoadImaged")
    channel_first = first.get("ensure_channel_first", False)
    if not isinstance(channel_first, bool):
        raise ModelRefused("ensure_channel_first of LoadImaged is not true or false")
    transforms[0] = {"_target_": "Identityd", "keys": first.get("keys")}
    config["preprocessing"] = config["preprocessing"] | {"transforms": transforms}
    return channel_first


def _refuse_other_files(value: Any) -> None:
    """A macro may draw in another file, which was not read with those whose hash was checked."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            _refuse_other_files(part)
    elif isinstance(value, str) and value.startswith("%") and any(s in value for s in (".json", ".yaml", ".yml")):
        raise ModelRefused(f"the configuration draws in another file: {value[:80]}")


def _first_keys(preprocessing: Any) -> str:
    keys = preprocessing.transforms[0].keys
    if len(keys) != 1:
        raise ModelRefused(f"LoadImaged reads {len(keys)} images; a CT is one")
    return str(keys[0])


def _refuse_chance(preprocessing: Any) -> None:
    from monai.transforms.transform import Randomizable

    for transform in preprocessing.flatten().transforms:
        if isinstance(transform, Randomizable):
            raise ModelRefused(f"preprocessing leaves something to chance: {type(transform).__name__}")


def _output_rule(parser: Any, config: dict[str, Any]) -> OutputRule:
    """What Activationsd and AsDiscreted of the postprocessing say. The other steps are not built."""
    try:
        steps = config["postprocessing"]["transforms"]
        names = [step["_target_"].rsplit(".", 1)[-1] for step in steps]
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelRefused("postprocessing is not a list of transforms in the configuration") from error
    softmax = sigmoid = argmax = False
    thresholds: list[float] = []
    left_out = []
    for number, name in enumerate(names):
        if name in REPLACED or steps[number].get("_disabled_") is True:
            continue
        if name not in (*ACTIVATIONS, *DISCRETISERS):
            left_out.append(name)
            continue
        step = parser.get_parsed_content(f"postprocessing::transforms::{number}")
        if name in ACTIVATIONS:
            if any(step.other):
                raise ModelRefused("its output is activated by a function of its own")
            softmax, sigmoid = softmax or any(step.softmax), sigmoid or any(step.sigmoid)
        else:
            argmax = argmax or any(step.argmax)
            thresholds += [float(value) for value in step.threshold if value is not None]
    if (softmax or argmax) == sigmoid or (softmax and thresholds):
        raise ModelRefused("postprocessing says neither softmax with argmax nor sigmoid with a threshold")
    return OutputRule(not sigmoid, thresholds[0] if thresholds else DEFAULT_THRESHOLD, tuple(left_out))


def _loaded(network: Any, files: BundleFiles, device: str) -> Any:
    """The network with its weights, all of them and no other."""
    import torch

    if not isinstance(network, torch.nn.Module):
        raise ModelRefused(f"network_def is a {type(network).__name__}, not a network")
    state = _state(files)
    try:
        network.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ModelUnverified("the weights are not those of the network in the configuration") from error
    return network.to(device=torch.device(device), dtype=torch.float32).eval()


def _state(files: BundleFiles) -> Any:
    """Plain tensors by name; a pickle that would build anything else is refused."""
    import torch

    try:
        if files.weights_suffix == ".safetensors":
            import safetensors.torch

            state: Any = safetensors.torch.load(files.weights)
        else:
            state = torch.load(io.BytesIO(files.weights), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise ModelRefused("the weights are not plain tensors; nothing else is loaded") from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise ModelRefused("the weights are not a safetensors file") from error
        raise
    inner = [state[key] for key in STATE_KEYS if isinstance(state, dict) and isinstance(state.get(key), dict)]
    return inner[0] if len(inner) == 1 else state


def _placed(inferer: Any, device: str) -> Any:
    """The inferer on the device that was asked for, whatever its configuration would have picked."""
    import torch

    if not callable(inferer):
        raise ModelRefused(f"inferer is a {type(inferer).__name__}")
    for name in ("device", "sw_device"):
        if hasattr(inferer, name):
            setattr(inferer, name, torch.device(device))
    return inferer
