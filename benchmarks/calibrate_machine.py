"""What to write as `energy_fluence_per_mu_mev_cm2` of a machine, so that the engine gives 1 cGy per MU at the reference
conditions: python -m benchmarks.calibrate_machine MACHINE_ID"""

from __future__ import annotations

import sys

from rtplan.engines.collapsed_cone import reference_output
from rtplan.library.machines import load_machine


def main(machine_id: str) -> None:
    """Prints the present output and the calibrated energy fluence per MU."""
    machine = load_machine(machine_id)
    output = reference_output(machine.beam, sad_mm=machine.sad_mm)
    calibrated = machine.beam.energy_fluence_per_mu_mev_cm2 * 0.01 / output
    print(f"{machine_id}: {100 * output:.4f} cGy/MU now; energy_fluence_per_mu_mev_cm2: {calibrated:.5e}")


if __name__ == "__main__":
    main(sys.argv[1])
