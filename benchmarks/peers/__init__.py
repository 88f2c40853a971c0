"""The same phantoms in other people's dose engines: scripts that each run in an environment of their own."""
