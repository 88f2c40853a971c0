"""CT calibrations: `library/calibrations/<id>.yaml` to `HuCalibration`."""

from __future__ import annotations

from pathlib import Path

from rtplan.domain.image import HuCalibration
from rtplan.errors import LibraryInvalid
from rtplan.library.schema import CalibrationFile, inconsistent, validated
from rtplan.library.yaml_lines import YamlDocument, read_yaml

CALIBRATIONS = Path(__file__).parent / "calibrations"


def list_calibrations() -> tuple[str, ...]:
    """Ids of the calibrations that ship with rtplan, sorted."""
    return tuple(sorted(path.stem for path in CALIBRATIONS.glob("*.yaml")))


def load_calibration(calibration_id: str) -> HuCalibration:
    """The calibration of that id, or the one in a YAML file when `calibration_id` is a path.

    Raises LibraryInvalid: CALIBRATION_UNKNOWN for an id that is not there, else as `check_calibration`.
    """
    if calibration_id.endswith((".yaml", ".yml")) or "/" in calibration_id:
        return check_calibration(Path(calibration_id))
    if calibration_id not in list_calibrations():
        raise LibraryInvalid(
            "CALIBRATION_UNKNOWN",
            f"calibration {calibration_id!r} is not known",
            "one of " + ", ".join(list_calibrations()),
            "name one of these, or give the path of a calibration file",
        )
    return check_calibration(CALIBRATIONS / f"{calibration_id}.yaml")


def check_calibration(path: Path) -> HuCalibration:
    """Read and check one calibration file. Raises LibraryInvalid as `check_protocol` does."""
    document = read_yaml(path)
    file = validated(CalibrationFile, document)
    _check_points(file, document)
    if file.status == "sourced" and any(point.status == "unverified" for point in file.points):
        expected = "unverified while any point is"
        raise inconsistent(document, ("status",), "sourced, yet a point is unverified", expected)
    return HuCalibration(
        calibration_id=file.id,
        status=file.status,
        source="; ".join(file.sources.values()),
        hu=tuple(float(point.hu) for point in file.points),
        mass_density_g_cm3=tuple(float(point.mass_density_g_cm3) for point in file.points),
        electron_density_rel=tuple(float(point.electron_density_rel) for point in file.points),
    )


def _check_points(file: CalibrationFile, document: YamlDocument) -> None:
    for i, point in enumerate(file.points):
        if point.source not in file.sources:
            expected = "one of " + ", ".join(file.sources)
            raise inconsistent(document, ("points", i, "source"), f"source {point.source!r} is not listed", expected)
        if i == 0:
            continue
        before = file.points[i - 1]
        if point.hu <= before.hu:
            found = f"{point.hu:g} HU follows {before.hu:g} HU"
            raise inconsistent(document, ("points", i, "hu"), found, "ascending HU")
        for name in ("mass_density_g_cm3", "electron_density_rel"):
            if getattr(point, name) <= getattr(before, name):
                found = f"{getattr(point, name):g} follows {getattr(before, name):g}"
                raise inconsistent(document, ("points", i, name), found, "a density that rises with HU")
