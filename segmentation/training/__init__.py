"""Training of the shipped model from a folder of patients."""
