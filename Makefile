# make demo   plan two phantoms and see what comes out
# make test   every test
# make check  what a change must pass: style, types, import rules, fast tests
# Each sets up .venv by itself the first time.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
# Two processes: most tests keep one core busy. Tests of one file stay together, for what they share.
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test check setup dicom-tools clean

demo: $(READY)
	@$(BIN)/rtplan demo -o demo_out --overwrite; code=$$?; \
	if [ $$code -ne 0 ] && [ $$code -ne 3 ]; then exit $$code; fi; \
	echo; echo "Look at:"; ls -1 demo_out/*/report.html; \
	if [ $$code -eq 3 ]; then echo "Some clinical goals are missed; the reports say which."; fi

test: $(READY) dicom-tools
	$(BIN)/python -m pytest -rs $(SIDE_BY_SIDE) --durations=15

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -rs $(SIDE_BY_SIDE) -m "not physics and not long and not gpu"

setup: $(READY)

# The stamp is made last: an installation that broke off is done again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "rtplan needs Python 3.11 or later; name it: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# The referees of the DICOM tests (dciodvfy, dcmdump). Without them those tests skip and say so.
dicom-tools:
	@if command -v dciodvfy >/dev/null && command -v dcmdump >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  export DEBIAN_FRONTEND=noninteractive; \
	  { timeout 120 apt-get install -y -q dicom3tools dcmtk || { timeout 60 apt-get update -q && timeout 120 apt-get install -y -q dicom3tools dcmtk; }; } >/dev/null 2>&1 \
	    || echo "dicom3tools and dcmtk could not be installed: the tests that need them skip"; \
	else echo "dicom3tools or dcmtk is absent: the tests that need them skip"; fi

clean:
	rm -rf $(VENV) demo_out build .pytest_cache .mypy_cache .ruff_cache
