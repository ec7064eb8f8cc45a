# Every target builds the virtual environment when it is missing or older than its description.
PYTHON ?= python3
OUT = out
PHOTO =
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help convert data replicate test lint format nbval benchmark report docs clean

help:
	@echo "make convert     PHOTO=photo.jpg OUT=out: an HDR image from a photo (without PHOTO: a cup of coffee)"
	@echo "make replicate   fetch the small data set, train briefly, execute the notebooks (10 minutes)"
	@echo "make test        the test suite"
	@echo "make lint        ruff check and ruff format --check"
	@echo "make nbval       re-execute the committed notebooks and compare their checked outputs"
	@echo "make benchmark   time inference, merging, metrics, baselines and training"
	@echo "make report      regenerate the tables from the committed rows"
	@echo "make docs        README, report and notebooks as a static site: site/index.html"
	@echo "make data        fetch the small data set        make format    let ruff format the code"
	@echo "make clean       remove results/runs, the site and caches"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $(STAMP)

data: $(STAMP)
	$(BIN)/python -m replication fetch mini

convert: $(STAMP)
	$(BIN)/python -m replication convert $(if $(PHOTO),"$(PHOTO)") -o "$(OUT)"

replicate: data
	$(BIN)/python -m replication run --profile quick --jobs 2

test: data
	$(BIN)/python -m pytest -n 2 --dist worksteal -q --benchmark-disable

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

nbval: data
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --nbval-lax --nbval-current-env -q -p no:cacheprovider notebooks

benchmark: data
	$(BIN)/python -m pytest -q --benchmark-only --benchmark-columns=min,median,rounds results/benchmarks.py

report: $(STAMP)
	$(BIN)/python -m replication report
	$(BIN)/python results/score.py --plots

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean:
	rm -rf results/runs site build dist *.egg-info .pytest_cache .ruff_cache
