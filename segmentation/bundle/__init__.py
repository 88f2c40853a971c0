"""MONAI bundles: what is pinned, what is read, what is run, and how its answer comes back to the CT."""
