"""What a model says of its own contours: a confidence by structure, and the doubts that a person must see."""

from segmentation.doubt.assess import Assessment, assess
from segmentation.doubt.calibration import Calibration, load_calibration
from segmentation.doubt.envelopes import Envelopes, load_envelopes

__all__ = ["Assessment", "Calibration", "Envelopes", "assess", "load_calibration", "load_envelopes"]
