# make course | test | lab          what a newcomer types; each makes .venv first
# make site | slides                the course as a web site, build/site; slides, build/slides (need Node.js once)
# make bundle                       one file for a room without a network, build/bundle
# make colab                        every lesson in an environment with Colab's versions
# make notebooks | lint | data | clean
# make course CPU=1                 on Linux: PyTorch without CUDA, 200 MB instead of 3 GB
# make notebooks ONLY="04 05"       these lessons only
PYTHON ?= python3
JOBS ?= 2
CONSTRAINTS ?= -c constraints.txt
comma := ,
EXTRAS := notebooks,test$(if $(COURSE_REQUIRE_BROWSER),$(comma)browser$(comma)docs$(comma)export)
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY := .venv/ready-$(subst $(comma),-,$(EXTRAS))
LESSONS := $(sort $(wildcard notebooks/*.ipynb))

.PHONY: course test lab colab site slides bundle notebooks lint data clean

course: $(READY)
	$(BIN)/python -m tools.run --out build/course

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -m "not browser" -n $(JOBS) --dist loadfile
ifneq ($(LESSONS),)
	env -u COURSE_BBBC038_ARCHIVE -u COURSE_VNC_ARCHIVE -u COURSE_RUNS COURSE_DATA="$(CURDIR)/build/no-data" COURSE_PRESET=smoke OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbval-lax \
	  --nbval-current-env --nbval-cell-timeout 300 -n $(JOBS) --dist loadfile -p tools.run.sockets -p no:cacheprovider $(LESSONS)
endif
ifneq ($(wildcard tests/browser),)
	$(BIN)/python -m pytest tests/browser
endif

lab: $(READY)
	$(BIN)/python -m jupyter lab notebooks/exercises

site: $(READY)-site
	$(BIN)/python -m tools.publish.site

slides: $(READY)
	$(BIN)/python -m tools.publish.slides

bundle: $(READY) site
	$(BIN)/python -m tools.publish.bundle

colab: $(READY)
	$(BIN)/python -m tools.run.colab

notebooks: $(READY)
	$(BIN)/python -m tools.notebooks.build $(if $(ONLY),--only $(ONLY))

lint: $(READY)
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/python -m tools.notebooks.lint
	$(BIN)/python -m tools.notebooks.build --check

data: $(READY)
	$(BIN)/python -m course_lib data bbbc038

clean: # .venv and data/cache stay: they cost a download
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY)-site: $(READY)
	@$(BIN)/python -m pip install -q --disable-pip-version-check $(CONSTRAINTS) -e ".[docs]"
	@touch $@

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "The course needs \
	Python 3.11 or newer, and $(PYTHON) is not: install one from python.org, then type make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "venv is missing: on Debian and Ubuntu, type sudo apt install python3-venv"; exit 1; }
	@echo "Installing into .venv (once; some minutes)"
	$(if $(CPU),@$(BIN)/python -m pip install -q --disable-pip-version-check $(CONSTRAINTS) torch --index-url https://download.pytorch.org/whl/cpu)
	@$(BIN)/python -m pip install -q --disable-pip-version-check $(CONSTRAINTS) -e ".[$(EXTRAS)]"
	@touch $@
