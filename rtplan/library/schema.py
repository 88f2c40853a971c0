"""What library files may contain. Every key is known, every type is exact, every number is finite."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from rtplan.domain.goals import parse_metric
from rtplan.errors import LibraryInvalid
from rtplan.library.yaml_lines import FieldPath, YamlDocument

_GOAL = re.compile(r"^(?P<metric>\S+)\s+(?P<sense><=|>=)\s+(?P<limit>\d+(?:\.\d+)?)$", re.ASCII)


def _metric(text: str) -> str:
    parse_metric(text)
    return text


def _goal(text: str) -> str:
    match = _GOAL.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not of the form 'D95[Gy] >= 50'")
    parse_metric(match["metric"])
    return text


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from error
    return text


def _number(value: Any) -> Any:
    # A huge integer has no float; say so as a type error rather than an overflow.
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**15:
        raise ValueError("the number is out of range")
    return value


Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
StructureName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_!~+\-]{0,31}$")]
Text = Annotated[str, Field(min_length=1, max_length=400)]
NameRegex = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_regex)]
MetricText = Annotated[str, AfterValidator(_metric)]
GoalText = Annotated[str, AfterValidator(_goal)]
Number = Annotated[float, BeforeValidator(_number)]
Angle = Annotated[Number, Field(ge=0, lt=360)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
StatusText = Literal["sourced", "unverified"]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class LevelFile(_File):
    """A target and its dose."""

    target: StructureName
    dose_gy: Positive
    names: list[NameRegex] = Field(min_length=1)
    optional: bool = False


class OrganFile(_File):
    """An organ and the ROI names accepted for it."""

    name: StructureName
    names: list[NameRegex] = Field(min_length=1)
    required: bool = False


class HelperFile(_File):
    """A structure made from others."""

    name: StructureName
    kind: Literal["expand", "ring", "subtract", "union"]
    of: list[StructureName] = Field(min_length=1)
    minus: list[StructureName] = []
    inner_mm: Annotated[Number, Field(ge=0, le=200)] = 0.0
    outer_mm: Annotated[Number, Field(ge=0, le=200)] = 0.0


class GoalFile(_File):
    """A clinical goal, such as `goal: D99[Gy] >= 66.5`; `source` is a key of the file's `sources`."""

    structure: StructureName
    goal: GoalText
    priority: Annotated[int, Field(ge=0, le=99)]
    source: Identifier
    status: StatusText
    ideal: NotNegative | None = None
    side: Literal["left", "right"] | None = None

    def parts(self) -> tuple[str, str, float]:
        """Metric, sense and limit."""
        match = _GOAL.match(self.goal)
        assert match is not None  # the validator has seen to it
        return match["metric"], match["sense"], float(match["limit"])


class ArcFile(_File):
    """One arc; CW counts angles upwards."""

    start_deg: Angle
    stop_deg: Angle
    direction: Literal["CW", "CC"]
    collimator_angle_deg: Angle


class BeamsFile(_File):
    """Static fields, arcs, or both, or an arrangement by name."""

    gantry_angles_deg: list[Angle] = Field(default=[], max_length=72)
    collimator_angle_deg: Angle
    arcs: list[ArcFile] = Field(default=[], max_length=3)
    arrangement: Literal["opposed_laterals", "ap_pa", "pa", "tangents"] | None = None
    posterior_tilt_deg: Annotated[Number, Field(ge=0, le=15)] | None = None
    flash_mm: Annotated[Number, Field(ge=0, le=40)] | None = None


class BlockFile(_File):
    """An organ that the leaves of a conformal field keep covered."""

    structure: StructureName
    margin_mm: Annotated[Number, Field(ge=0, le=20)]


class ConformalFile(_File):
    """What a conformal plan aims at."""

    low_percent: Annotated[Number, Field(ge=50, le=100)]
    high_percent: Annotated[Number, Field(ge=100, le=130)]
    blocks: list[BlockFile]


class NormalisationFile(_File):
    """`metric` of `structure` is scaled to `value`."""

    structure: StructureName
    metric: MetricText
    value: Positive


class ProtocolFile(_File):
    """`library/sites/<id>.yaml`."""

    id: Identifier
    version: Annotated[str, Field(pattern=r"^\d+(\.\d+){1,2}$")]
    title: Text
    status: StatusText
    sources: dict[Identifier, Text] = Field(min_length=1)
    fractions: Annotated[int, Field(gt=0, le=100)]
    levels: list[LevelFile] = Field(min_length=1)
    nested_targets: bool
    target_skin_crop_mm: Annotated[Number, Field(ge=0, le=20)]
    target_margin_mm: Annotated[Number, Field(ge=0, le=30)]
    organs: list[OrganFile]
    helpers: list[HelperFile]
    goals: list[GoalFile] = Field(min_length=1)
    technique: Literal["imrt", "vmat", "conformal"]
    laterality: Literal["from_target"] | None = None
    beams: BeamsFile
    conformal: ConformalFile | None = None
    normalisation: NormalisationFile | None
    beamlet_mm: Annotated[Number, Field(ge=1, le=10)]
    dose_grid_mm: Annotated[Number, Field(ge=1, le=5)]
    optimisation_grid_mm: Annotated[Number, Field(ge=1, le=10)]
    segments_per_beam: Annotated[int, Field(ge=1, le=200)]


class LeafBandFile(_File):
    """Neighbouring leaf pairs of one width, at the isocentre plane along Y."""

    from_mm: Number
    to_mm: Number
    width_mm: Positive


Transmission = Annotated[Number, Field(ge=0, lt=0.5)]


class MlcFile(_File):
    """The multileaf collimator: where its leaves are and how far they go. What they let through stands with the beam."""

    leaf_bands: list[LeafBandFile] = Field(min_length=1)
    max_position_mm: Positive
    max_overtravel_mm: NotNegative
    max_span_mm: Positive
    min_gap_mm: NotNegative
    interdigitation: bool
    max_leaf_speed_mm_s: Positive
    tongue_mm: Annotated[Number, Field(ge=0, le=2)]


Range = Annotated[list[Number], Field(min_length=2, max_length=2)]
EnergyId = Annotated[str, Field(pattern=r"^[0-9]{1,2}(X|FFF)$")]


class JawsFile(_File):
    """Where each jaw may stand, lowest and highest position."""

    x1_range_mm: Range
    x2_range_mm: Range
    y1_range_mm: Range
    y2_range_mm: Range
    max_speed_mm_s: Positive


class ArcLimitsFile(_File):
    """What the machine asks of an arc. `dose_rates_mu_min` null: it varies the dose rate continuously."""

    min_dose_rate_mu_min: Positive
    dose_rates_mu_min: list[Positive] | None
    min_mu_per_deg: Positive
    max_mu_per_deg: Positive
    max_spacing_deg: Annotated[Number, Field(gt=0, le=10)]


class MachineFile(_File):
    """`library/machines/<id>/machine.yaml`."""

    id: Identifier
    version: Annotated[str, Field(pattern=r"^\d+(\.\d+){1,2}$")]
    title: Text
    status: Text
    sources: list[Text] = Field(min_length=1)
    manufacturer: Annotated[str, Field(max_length=64)]
    model_name: Annotated[str, Field(min_length=1, max_length=64)]
    sad_mm: Annotated[Number, Field(ge=500, le=2000)]
    mlc: MlcFile
    jaws: JawsFile
    beams: list[Annotated[str, Field(pattern=r"^beam_[0-9]{1,2}(X|FFF)\.yaml$")]] = Field(min_length=1, max_length=20)
    max_gantry_speed_deg_s: Positive
    min_segment_mu: Positive
    min_segment_area_cm2: Positive
    max_beam_mu: Positive
    gantry_range_deg: Range
    arc: ArcLimitsFile | None


class MachineAliasFile(_File):
    """`library/machines/<id>/machine.yaml` of a machine that is one beam of another under its own name."""

    id: Identifier
    title: Text
    model_name: Annotated[str, Field(min_length=1, max_length=64)]
    same_as: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}:[0-9]{1,2}(X|FFF)$")]


class CollimationFile(_File):
    """What leaves and jaws let through of this beam."""

    source: Text
    mlc_transmission: Transmission
    mlc_interleaf_transmission: Transmission
    dosimetric_leaf_gap_mm: Annotated[Number, Field(ge=0, le=5)]
    jaw_transmission: Transmission


class ExtraFocalFile(_File):
    """Photons scattered in the head."""

    source: Text
    fraction: Annotated[Number, Field(gt=0, lt=0.5)]
    sigma_mm: Annotated[Number, Field(gt=0, le=100)]
    distance_mm: Annotated[Number, Field(ge=10, le=400)]
    collimator_distance_mm: Annotated[Number, Field(ge=100, le=900)]


class SofteningFile(_File):
    """Attenuation coefficients in water off the axis over those on it."""

    source: Text
    radius_mm: list[NotNegative] = Field(min_length=2)
    mu_ratio: list[Annotated[Number, Field(ge=0.8, le=1.5)]] = Field(min_length=2)


class ContaminationFile(_File):
    """Electrons from the head and the air."""

    source: Text
    amplitude: Annotated[Number, Field(gt=0, lt=1)]
    attenuation_per_cm: Annotated[Number, Field(gt=0, le=20)]
    range_cm: Annotated[Number, Field(gt=0, le=20)]
    sigma_mm: Annotated[Number, Field(gt=0, le=300)]


class BeamFile(_File):
    """`library/machines/<id>/beam_<energy>.yaml`. What a beam lacks is written as null, not left out."""

    energy_id: EnergyId
    nominal_energy_mv: Annotated[Number, Field(ge=1, le=25)]
    max_dose_rate_mu_min: Positive
    spectrum_source: Text
    spectrum_edges_mev: list[NotNegative] = Field(min_length=2)
    spectrum_photon_fraction: list[NotNegative] = Field(min_length=1)
    energy_fluence_per_mu_mev_cm2: Annotated[Number, Field(ge=1e8, le=1e11)]
    calibration_note: Text
    spot_source: Text
    source_sigma_x_mm: Annotated[Number, Field(ge=0, le=5)]
    source_sigma_y_mm: Annotated[Number, Field(ge=0, le=5)]
    collimator_distance_mm: Annotated[Number, Field(ge=100, le=900)]
    collimation: CollimationFile
    off_axis_source: Text
    off_axis_radius_mm: list[NotNegative] = Field(min_length=2)
    off_axis_factor: list[Annotated[Number, Field(gt=0, le=2)]] = Field(min_length=2)
    softening: SofteningFile | None
    extra_focal: ExtraFocalFile | None
    contamination: ContaminationFile | None


class CalibrationPointFile(_File):
    """One material of a calibration."""

    material: Text
    hu: Annotated[Number, Field(ge=-1024, le=32767)]
    mass_density_g_cm3: Annotated[Number, Field(ge=0, le=25)]
    electron_density_rel: Annotated[Number, Field(ge=0, le=25)]
    source: Identifier
    status: StatusText


class CalibrationFile(_File):
    """`library/calibrations/<id>.yaml`."""

    id: Identifier
    title: Text
    status: StatusText
    sources: dict[Identifier, Text] = Field(min_length=1)
    points: list[CalibrationPointFile] = Field(min_length=2)


FileModel = TypeVar("FileModel", bound=BaseModel)
_CODES = {"extra_forbidden": "FIELD_UNKNOWN", "missing": "FIELD_MISSING"}
_SHOWN = 5


def validated(model: type[FileModel], document: YamlDocument) -> FileModel:
    """The document as `model`. Raises LibraryInvalid with file, line and field of the first mistakes."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        told = [_told(document, problem) for problem in problems[:_SHOWN]]
        if len(problems) > _SHOWN:
            told.append(f"and {len(problems) - _SHOWN} more")
        code = _CODES.get(problems[0]["type"], "FIELD_INVALID")
        raise LibraryInvalid(code, " | ".join(told), "the fields of " + model.__name__, "correct the file") from error


def _told(document: YamlDocument, problem: Any) -> str:
    field: FieldPath = tuple(problem["loc"])
    where = document.where(field)
    match problem["type"]:
        case "extra_forbidden":
            return f"{where}: this key is not known"
        case "missing":
            return f"{where}: this key is missing"
        case "value_error":
            return f"{where}: {problem['ctx']['error']}"
    return f"{where}: {problem['msg']}, found {_short(problem['input'])}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def inconsistent(
    document: YamlDocument, field: FieldPath, found: str, expected: str, remedy: str = "correct the file"
) -> LibraryInvalid:
    """The error for a file whose fields are well formed but contradict each other."""
    return LibraryInvalid("FIELD_INCONSISTENT", f"{document.where(field)}: {found}", expected, remedy)
