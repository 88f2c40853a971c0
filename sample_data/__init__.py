"""Phantoms that rtplan makes itself: pure functions that draw them, and the script that writes them as DICOM."""
