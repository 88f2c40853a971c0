"""Open compute engine that plans radiation therapy: CT in, deliverable DICOM-RT plan proposal out."""
