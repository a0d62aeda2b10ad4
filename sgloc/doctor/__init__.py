"""`sgloc doctor`: what would spoil a run is found before it starts."""

from sgloc.doctor.finding import Finding
from sgloc.doctor.run import DoctorOptions, examine

__all__ = ["DoctorOptions", "Finding", "examine"]
