"""What to write as `energy_fluence_per_mu_mev_cm2` of a machine's beams, so that the engine gives 1 cGy per MU at the
reference conditions (water, 10x10 cm², SSD 100 cm, depth of maximum):
python -m benchmarks.calibrate_machine MACHINE[:ENERGY] ..."""

from __future__ import annotations

import sys

from rtplan.engines.collapsed_cone import reference_output
from rtplan.library.machines import list_machines, load_machine


def main(names: list[str]) -> None:
    """Prints the present output and the calibrated energy fluence per MU of every beam that a name means."""
    for name in names:
        for beam_name in [known for known in list_machines() if known.split(":")[0] == name] or [name]:
            machine = load_machine(beam_name)
            output = reference_output(machine.beam, sad_mm=machine.sad_mm)
            calibrated = machine.beam.energy_fluence_per_mu_mev_cm2 * 0.01 / output
            print(f"{beam_name}: {100 * output:.4f} cGy/MU now; energy_fluence_per_mu_mev_cm2: {calibrated:.5e}")


if __name__ == "__main__":
    main(sys.argv[1:])
