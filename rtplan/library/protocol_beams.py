"""The beams of a protocol file: which of them a technique needs, and whether a machine can turn that way."""

from __future__ import annotations

from rtplan.domain.prescription import Arc, Arrangement, BeamArrangement, Block, ConformalRules, Technique
from rtplan.library.schema import BeamsFile, ProtocolFile, inconsistent
from rtplan.library.yaml_lines import FieldPath, YamlDocument

END_OF_TRAVEL_DEG = 180.0  # where the gantry's turn begins and ends
AWAY_FROM_END_DEG = 0.5  # an arc that starts or ends nearer is at the mercy of rounding
ARC_LENGTHS_DEG = (1.0, 359.0)
_NEEDS = {"imrt": "gantry_angles_deg", "vmat": "arcs", "conformal": "`conformal`, and an arrangement or gantry_angles_deg"}
_PARAMETER_OF = {"opposed_laterals": "posterior_tilt_deg", "tangents": "flash_mm"}


def check_beams(file: ProtocolFile, document: YamlDocument) -> None:
    """Raises LibraryInvalid FIELD_INCONSISTENT for beams that fit neither the technique nor a machine."""
    beams = file.beams
    if len(set(beams.gantry_angles_deg)) != len(beams.gantry_angles_deg):
        raise inconsistent(document, ("beams", "gantry_angles_deg"), "an angle is given twice", "each angle once")
    for i, arc in enumerate(_arcs(beams)):
        _check_arc(arc, ("beams", "arcs", i), document)
    _check_arrangement(file, document)
    if file.technique == "conformal" and len(file.levels) > 1:
        raise inconsistent(document, ("levels",), f"{len(file.levels)} levels of a conformal plan", "one dose")
    if file.technique not in offered(arrangement(beams), conformal_rules(file)):
        needs = {
            "imrt": "gantry_angles_deg",
            "vmat": "arcs",
            "conformal": "an arrangement or gantry_angles_deg, and `conformal`",
        }
        expected = f"{file.technique} with {needs[file.technique]}"
        raise inconsistent(document, ("technique",), f"{file.technique} without its beams", expected)


def _check_arc(arc: Arc, field: FieldPath, document: YamlDocument) -> None:
    low, high = ARC_LENGTHS_DEG
    if not low <= arc.length_deg <= high:
        raise inconsistent(document, (*field, "stop_deg"), f"an arc of {arc.length_deg:g} deg", f"{low:g} to {high:g} deg")
    for name, angle in (("start_deg", arc.start_deg), ("stop_deg", arc.stop_deg)):
        if abs(angle - END_OF_TRAVEL_DEG) < AWAY_FROM_END_DEG:
            expected = f"at least {AWAY_FROM_END_DEG:g} deg from {END_OF_TRAVEL_DEG:g}, where the gantry's turn ends"
            raise inconsistent(document, (*field, name), f"{angle:g} deg", expected)
    if passes(arc, END_OF_TRAVEL_DEG):
        found = f"{arc.start_deg:g} to {arc.stop_deg:g} deg {arc.direction} passes {END_OF_TRAVEL_DEG:g}"
        raise inconsistent(
            document, (*field, "direction"), found, "an arc that the gantry can turn", "turn the other way round"
        )


def passes(arc: Arc, angle_deg: float) -> bool:
    """Whether the gantry passes an angle on its way."""
    ahead = angle_deg - arc.start_deg if arc.direction == "CW" else arc.start_deg - angle_deg
    return ahead % 360.0 <= arc.length_deg


def _check_arrangement(file: ProtocolFile, document: YamlDocument) -> None:
    beams, kind = file.beams, file.beams.arrangement
    if kind is not None and (beams.gantry_angles_deg or beams.arcs):
        raise inconsistent(document, ("beams", "arrangement"), f"{kind} beside angles or arcs", "one of them")
    if kind is not None and file.technique != "conformal":
        raise inconsistent(document, ("beams", "arrangement"), f"{kind} with {file.technique}", "technique: conformal")
    if kind == "tangents" and file.laterality is None:
        raise inconsistent(document, ("beams", "arrangement"), "tangents of no side", "laterality: from_target")
    for name, value in (("posterior_tilt_deg", beams.posterior_tilt_deg), ("flash_mm", beams.flash_mm)):
        wanted = kind is not None and _PARAMETER_OF.get(kind) == name
        if wanted != (value is not None):
            found = f"{name} {'is missing' if wanted else 'has no meaning here'}"
            expected = f"{name} with {next(k for k, v in _PARAMETER_OF.items() if v == name)} only"
            raise inconsistent(document, ("beams",) if wanted else ("beams", name), found, expected)
    if (file.conformal is not None) != (file.technique == "conformal"):
        raise inconsistent(document, ("technique",), f"{file.technique}", "`conformal` with technique: conformal only")


def offered(beams: BeamArrangement, rules: ConformalRules | None) -> tuple[Technique, ...]:
    """Techniques that these beams serve."""
    found: list[Technique] = []
    if beams.gantry_angles_deg:
        found.append("imrt")
    if beams.arcs:
        found.append("vmat")
    if rules is not None and (beams.arrangement is not None or beams.gantry_angles_deg):
        found.append("conformal")
    return tuple(found)


def arrangement(beams: BeamsFile) -> BeamArrangement:
    """The directions that a file names."""
    kind = beams.arrangement
    return BeamArrangement(
        tuple(beams.gantry_angles_deg),
        beams.collimator_angle_deg,
        _arcs(beams),
        None if kind is None else Arrangement(kind, beams.posterior_tilt_deg, beams.flash_mm),
    )


def _arcs(beams: BeamsFile) -> tuple[Arc, ...]:
    return tuple(Arc(a.start_deg, a.stop_deg, a.direction, a.collimator_angle_deg) for a in beams.arcs)


def conformal_rules(file: ProtocolFile) -> ConformalRules | None:
    """What a conformal plan by this file aims at; None for other techniques."""
    rules = file.conformal
    if rules is None:
        return None
    return ConformalRules(
        rules.low_percent, rules.high_percent, tuple(Block(b.structure, b.margin_mm) for b in rules.blocks)
    )
