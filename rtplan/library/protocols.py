"""Site protocols: `library/sites/<id>.yaml` to `Protocol`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from rtplan.domain.goals import Goal, Metric, parse_metric
from rtplan.domain.prescription import (
    HelperRule,
    Normalisation,
    OrganRule,
    PrescriptionLevel,
    Protocol,
    Technique,
)
from rtplan.errors import LibraryInvalid
from rtplan.library.protocol_beams import arrangement, check_beams, conformal_rules, offered
from rtplan.library.schema import GoalFile, ProtocolFile, inconsistent, validated
from rtplan.library.yaml_lines import FieldPath, YamlDocument, read_yaml

SITES = Path(__file__).parent / "sites"
EXTERNAL = "External"
MAX_FRACTION_GY = 30.0  # safety.md RX-02: beyond it the numbers are wrong, whatever the technique


def list_protocols() -> tuple[str, ...]:
    """Ids of the protocols that ship with rtplan, sorted."""
    return tuple(sorted(path.stem for path in SITES.glob("*.yaml")))


def load_protocol(protocol_id: str) -> Protocol:
    """The protocol of that id, or the one in a YAML file when `protocol_id` is a path.

    Raises LibraryInvalid: PROTOCOL_UNKNOWN for an id that is not there, else as `check_protocol`.
    """
    if protocol_id.endswith((".yaml", ".yml")) or "/" in protocol_id:
        return check_protocol(Path(protocol_id))
    if protocol_id not in list_protocols():
        raise LibraryInvalid(
            "PROTOCOL_UNKNOWN",
            f"protocol {protocol_id!r} is not known",
            "one of " + ", ".join(list_protocols()),
            "name one of these, or give the path of a protocol file",
        )
    path = SITES / f"{protocol_id}.yaml"
    protocol = check_protocol(path)
    if protocol.protocol_id != protocol_id:
        raise LibraryInvalid(
            "FIELD_INCONSISTENT",
            f"{path.name}, id: {protocol.protocol_id!r}",
            f"id {protocol_id!r}, as the file is called",
            "correct the id or rename the file",
        )
    return protocol


def with_technique(protocol: Protocol, technique: Technique) -> Protocol:
    """The protocol planned by another technique. Raises LibraryInvalid TECHNIQUE_MISSING when it has no beams for that."""
    if technique not in offered(protocol.beams, protocol.conformal):
        raise LibraryInvalid(
            "TECHNIQUE_MISSING",
            f"protocol {protocol.protocol_id} has no beams for {technique}",
            "one of " + ", ".join(offered(protocol.beams, protocol.conformal)),
            "choose one of these, or add beams to the protocol",
        )
    return replace(protocol, technique=technique)


def check_protocol(path: Path) -> Protocol:
    """Read and check one protocol file.

    Raises LibraryInvalid with file, line and field: YAML_INVALID, YAML_DUPLICATE_KEY, FIELD_UNKNOWN, FIELD_MISSING,
    FIELD_INVALID, FIELD_INCONSISTENT.
    """
    document = read_yaml(path)
    file = validated(ProtocolFile, document)
    for check in _CHECKS:
        check(file, document)
    return _protocol(file, document)


def _check_levels(file: ProtocolFile, document: YamlDocument) -> None:
    doses = [level.dose_gy for level in file.levels]
    for i, dose_gy in enumerate(doses):
        if dose_gy / file.fractions > MAX_FRACTION_GY:
            found = f"{dose_gy:g} Gy in {file.fractions} fractions is {dose_gy / file.fractions:g} Gy a fraction"
            raise inconsistent(document, ("levels", i, "dose_gy"), found, f"at most {MAX_FRACTION_GY:g} Gy")
        if i and dose_gy >= doses[i - 1]:
            raise inconsistent(
                document,
                ("levels", i, "dose_gy"),
                f"{dose_gy:g} Gy follows {doses[i - 1]:g} Gy",
                "levels in descending order of dose",
            )
    if all(level.optional for level in file.levels):
        raise inconsistent(document, ("levels",), "every level is optional", "a level that must be there")


def _defined(file: ProtocolFile) -> list[tuple[FieldPath, str]]:
    return [
        *((("levels", i, "target"), level.target) for i, level in enumerate(file.levels)),
        *((("organs", i, "name"), organ.name) for i, organ in enumerate(file.organs)),
        *((("helpers", i, "name"), helper.name) for i, helper in enumerate(file.helpers)),
    ]


def _check_names(file: ProtocolFile, document: YamlDocument) -> None:
    seen = {EXTERNAL.lower()}
    for field, name in _defined(file):
        if name.lower() in seen:
            raise inconsistent(document, field, f"{name!r} is defined twice", "names that differ by more than case")
        seen.add(name.lower())
    rules = [*(("levels", i, r.target, r.names) for i, r in enumerate(file.levels))]
    rules += [("organs", i, r.name, r.names) for i, r in enumerate(file.organs)]
    for group, i, name, names in rules:
        if not _accepts(names, name):
            raise inconsistent(
                document,
                (group, i, "names"),
                f"{name!r} itself is not among the accepted names",
                "the name itself is accepted",
                f"add {name}",
            )
        for other_group, j, other, other_names in rules:
            if (group, i) != (other_group, j) and _accepts(other_names, name):
                found = f"the pattern of {other!r} also accepts {name!r}"
                raise inconsistent(document, (other_group, j, "names"), found, "one rule for each name")


def _accepts(patterns: Iterable[str], name: str) -> bool:
    return any(re.fullmatch(pattern, name, re.IGNORECASE) for pattern in patterns)


def _check_references(file: ProtocolFile, document: YamlDocument) -> None:
    organs = {organ.name for organ in file.organs}
    known = {EXTERNAL, *(level.target for level in file.levels), *organs, *_sided(file, organs)}
    for i, helper in enumerate(file.helpers):  # a helper may use those above it
        for key, parts in (("of", helper.of), ("minus", helper.minus)):
            for k, part in enumerate(parts):
                _check_known(document, ("helpers", i, key, k), part, known)
        if helper.kind in ("ring", "expand") and not helper.outer_mm > helper.inner_mm:
            found = f"outer_mm {helper.outer_mm:g} is not beyond inner_mm {helper.inner_mm:g}"
            raise inconsistent(document, ("helpers", i), found, "outer_mm > inner_mm")
        if (helper.kind == "subtract") != bool(helper.minus):
            raise inconsistent(
                document,
                ("helpers", i),
                f"{helper.kind} with minus {helper.minus}",
                "minus with subtract only",
            )
        known.add(helper.name)
    for i, block in enumerate(file.conformal.blocks if file.conformal else ()):
        _check_known(document, ("conformal", "blocks", i, "structure"), block.structure, known)
    for i, goal in enumerate(file.goals):
        _check_known(document, ("goals", i, "structure"), goal.structure, known)
    if file.normalisation is not None:
        targets = {level.target for level in file.levels}
        _check_known(document, ("normalisation", "structure"), file.normalisation.structure, targets)


def _sided(file: ProtocolFile, organs: set[str]) -> set[str]:
    """Names such as Lung_ipsi that the file may use: both lungs are organs, and the side comes from the target."""
    if file.laterality is None:
        return set()
    paired = {organ.removesuffix("_L") for organ in organs if organ.endswith("_L")}
    return {f"{stem}{end}" for stem in paired if f"{stem}_R" in organs for end in ("_ipsi", "_contra")}


def _check_known(document: YamlDocument, field: FieldPath, name: str, known: set[str]) -> None:
    if name not in known:
        raise inconsistent(document, field, f"structure {name!r} is not defined", "one of " + ", ".join(sorted(known)))


def _check_goals(file: ProtocolFile, document: YamlDocument) -> None:
    highest_gy = max(level.dose_gy for level in file.levels)
    helpers = {helper.name for helper in file.helpers}
    for i, goal in enumerate(file.goals):
        metric, limit = parse_metric(goal.parts()[0]), goal.parts()[2]
        if goal.source not in file.sources:
            expected = "one of " + ", ".join(file.sources)
            raise inconsistent(document, ("goals", i, "source"), f"source {goal.source!r} is not listed", expected)
        if metric.kind.endswith("at_percent") and metric.kind != "dose_at_percent" and goal.structure in helpers:
            # Which prescription a helper's percentages mean is nowhere said.
            found = f"{metric.text} of the helper {goal.structure!r} is a percentage of an unnamed dose"
            raise inconsistent(document, ("goals", i, "goal"), found, "a dose in Gy")
        for key, value in (("goal", limit), ("ideal", goal.ideal)):
            if value is not None:
                _check_plausible(document, ("goals", i, key), metric, value, highest_gy)
        if goal.side is not None and file.laterality is None:
            raise inconsistent(
                document,
                ("goals", i, "side"),
                f"a goal for the {goal.side}, but no side is asked for",
                "laterality: from_target",
            )
        if goal.ideal is not None and (goal.ideal > limit if goal.parts()[1] == "<=" else goal.ideal < limit):
            raise inconsistent(
                document,
                ("goals", i, "ideal"),
                f"{goal.ideal:g} is weaker than {limit:g}",
                "ideal beyond limit",
            )


def _check_plausible(document: YamlDocument, field: FieldPath, metric: Metric, value: float, highest_gy: float) -> None:
    """A limit in cGy, or a volume above 100 %, is a slip of the pen that nobody would see again."""
    if metric.unit == "Gy" and value > 1.5 * highest_gy:
        found, expected = f"{value:g} Gy", f"at most 1.5 times the highest level, {1.5 * highest_gy:g} Gy"
        raise inconsistent(document, field, found, expected, "doses are in Gy, not cGy")
    if metric.unit == "%" and value > 100:
        raise inconsistent(document, field, f"{value:g} %", "a volume of at most 100 %")
    if metric.kind == "dose_at_percent" and metric.argument > 100:
        raise inconsistent(document, field, metric.text, "D of at most 100 %")
    if metric.kind in ("percent_at_gy", "cc_at_gy") and metric.argument > 1.5 * highest_gy:
        raise inconsistent(
            document, field, metric.text, f"a dose of at most {1.5 * highest_gy:g} Gy", "doses are in Gy, not cGy"
        )


def _check_normalisation(file: ProtocolFile, document: YamlDocument) -> None:
    if file.normalisation is not None:
        dose_gy, highest_gy = file.normalisation.value, file.levels[0].dose_gy
        if parse_metric(file.normalisation.metric).unit != "Gy" or not 0.5 * highest_gy <= dose_gy <= 1.2 * highest_gy:
            found = f"{file.normalisation.metric} = {dose_gy:g}"
            expected = f"a dose in Gy near the highest level, {highest_gy:g} Gy"
            raise inconsistent(document, ("normalisation", "value"), found, expected)


def _check_status(file: ProtocolFile, document: YamlDocument) -> None:
    if file.status == "sourced" and any(goal.status == "unverified" for goal in file.goals):
        raise inconsistent(
            document,
            ("status",),
            "sourced, yet a goal is unverified",
            "unverified while any goal is",
        )


_CHECKS = (
    _check_levels,
    _check_names,
    _check_references,
    _check_goals,
    check_beams,
    _check_normalisation,
    _check_status,
)


def _protocol(file: ProtocolFile, document: YamlDocument) -> Protocol:
    n = file.normalisation
    return Protocol(
        protocol_id=file.id,
        version=file.version,
        title=file.title,
        status=file.status,
        sources=tuple(file.sources.values()),
        fractions=file.fractions,
        levels=tuple(PrescriptionLevel(v.target, v.dose_gy, tuple(v.names), v.optional) for v in file.levels),
        nested_targets=file.nested_targets,
        target_skin_crop_mm=file.target_skin_crop_mm,
        target_margin_mm=file.target_margin_mm,
        organs=tuple(OrganRule(o.name, tuple(o.names), o.required) for o in file.organs),
        helpers=tuple(
            HelperRule(h.name, h.kind, tuple(h.of), tuple(h.minus), float(h.inner_mm), float(h.outer_mm))
            for h in file.helpers
        ),
        goals=tuple(_goal(goal, file) for goal in file.goals),
        beams=arrangement(file.beams),
        normalisation=Normalisation(n.structure, n.metric, n.value) if n else None,
        beamlet_mm=file.beamlet_mm,
        dose_grid_mm=file.dose_grid_mm,
        optimisation_grid_mm=file.optimisation_grid_mm,
        segments_per_beam=file.segments_per_beam,
        sha256=document.sha256,
        technique=file.technique,
        sided=file.laterality is not None,
        conformal=conformal_rules(file),
    )


def _goal(goal: GoalFile, file: ProtocolFile) -> Goal:
    metric, sense, limit = goal.parts()
    return Goal(
        structure=goal.structure,
        metric=parse_metric(metric),
        sense="<=" if sense == "<=" else ">=",
        limit=limit,
        priority=goal.priority,
        source=file.sources[goal.source],
        status=goal.status,
        ideal=goal.ideal,
        side=goal.side,
    )
