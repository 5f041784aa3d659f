# Everything here sets itself up: a fresh clone needs python3 (3.10 to 3.13, with venv), git and make.

PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
RUN = $(VENV)/bin/python

# Threads that wait for each other sleep instead of spinning: on a machine that is busy, or that has fewer processors than
# it says, spinning makes small networks tens of times slower.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help demo test wheel quality docs space screenshots benchmarks clean
.DELETE_ON_ERROR:

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo ## Draw 16 triplets into demo_output/; MODEL=folder for another model than the tiles'
	$(RUN) examples/quickstart.py $(if $(MODEL),--model $(MODEL)) --output_dir demo_output

# Files are shared among as many processes as there are processors, of one thread each: they take half the time of two
# threads in one process. One test alone is better run without -n.
test: $(VENV)/.installed-test ## Run the whole test suite
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q --durations=15 -n auto --maxprocesses 8 --dist loadfile

wheel: $(VENV)/.created ## Build the wheel, install it alone into a new environment, and draw with it
	rm -rf build
	$(PIP) wheel -q --no-deps -w build/wheel .
	$(PYTHON) -m venv build/wheel/env
	build/wheel/env/bin/pip install -q --disable-pip-version-check build/wheel/dfmgan_hf-*.whl
	cd build/wheel && time env/bin/dfmgan --help
	cd build/wheel && env/bin/dfmgan draw --model $(CURDIR)/models/dfmgan-magnetic-tile --num_images 4 --output_dir drawn
	test -s build/wheel/drawn/contact_sheet.png

quality: $(VENV)/.installed-test ## Lint, formatting and types
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

docs: $(VENV)/.installed-docs ## Build the site into build/site; a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build

space: $(VENV)/.installed-space ## Serve the web demo on this machine
	$(RUN) spaces/dfmgan_demo/app.py

screenshots: $(VENV)/.installed-test ## Take the pictures of the web demo in README (needs Chromium)
	$(RUN) -m tests.spaces.screenshots

benchmarks: $(VENV)/.installed-test ## Time everything on this machine (ten minutes, and nothing else may run)
	$(RUN) -m benchmarks.speed

clean: ## Remove what make and the tools wrote, but not the virtual environment
	rm -rf demo_output build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 10) <= sys.version_info[:2] <= (3, 13) else "Python 3.10 to 3.13 \
	is needed, but $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.12" % sys.version_info[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: \
	apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Each stamp says that this set of extras was installed for this pyproject.toml. torchvision comes in one command with
# torch: its builds fit one torch release only.
$(VENV)/.installed-demo: $(VENV)/.created pyproject.toml
	$(PIP) install -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created pyproject.toml
	$(PIP) install -e ".[test,docs,benchmarks,demo,poisson]" torch torchvision
	@touch $@ $(VENV)/.installed-demo $(VENV)/.installed-docs $(VENV)/.installed-space

$(VENV)/.installed-docs: $(VENV)/.created pyproject.toml
	$(PIP) install -e ".[docs]"
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-space: $(VENV)/.created pyproject.toml
	$(PIP) install -e ".[demo]"
	@touch $@ $(VENV)/.installed-demo
