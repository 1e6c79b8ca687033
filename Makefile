# attn_tutorial: `make help` lists what there is to do.

# The first interpreter that is new enough; `make book PYTHON=/path/to/python` overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
HTML := _build/html
PORT ?= 8000
# Chapters to run: `make notebooks NOTEBOOKS=notebooks/local_attention.ipynb`
NOTEBOOKS ?= $(shell ls -S notebooks/*.ipynb)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Two workers share the cores, so each computes with one thread. A worker takes a file
# at a time, in the order given: tests/conftest.py puts the longest first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile \
	--no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help book test chapters unit notebooks lab serve pdf slides timings check clean index \
	benchmark gpu mutants stable versions colab hub screens browser publish-as site

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /#/' \
	| while IFS='#' read -r name text; do printf '  make %-11s %s\n' "$$name" "$$text"; done

book: site  ## Build the site, English and Chinese (no torch needed), and say how to open it
	@echo
	@echo "The book is ready. Open this address in a browser:"
	@echo "  file://$(CURDIR)/$(HTML)/index.html"
	@echo "or run 'make serve' and open http://localhost:$(PORT)/"

test: $(VENV)/.everything browser check  ## Run every check: style, unit, browser and notebook tests
	@# The site is built on one core: meanwhile the chapters run.
	@failed=0; for part in "-j2 site chapters" unit; do \
	$(MAKE) -k --no-print-directory $$part || failed=1; done; exit $$failed

notebooks: $(VENV)/.everything  ## Run all chapters again and store their outputs
	OMP_NUM_THREADS=1 $(BIN)/python scripts/execute.py $(NOTEBOOKS)

lab: $(VENV)/.everything  ## Open the chapters in JupyterLab
	@# Untrusted outputs are stripped: without this, sliders would be walls of text.
	$(BIN)/jupyter trust notebooks/*.ipynb
	$(BIN)/jupyter lab notebooks

serve: site  ## Serve the built site on this computer
	@echo "http://localhost:$(PORT)/ (Ctrl-C stops it)"
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory $(HTML)

pdf: $(VENV)/.everything browser site  ## Print the whole book into _build/book.pdf
	$(BIN)/python scripts/book_pdf.py

slides: site  ## Make the slides for a class again, into the built site
	$(BIN)/python scripts/slides.py

timings: $(VENV)/.everything  ## Run each chapter alone, and write down its time and memory (20 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python scripts/timings.py
	$(BIN)/python scripts/teaching_pages.py

check: $(VENV)/.everything  ## Check style only (seconds)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:  ## Remove everything that was built (.venv stays)
	rm -rf _build .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

index: $(VENV)/.everything  ## Write the equation index, the questions of the solutions and the records again
	$(BIN)/python scripts/equation_index.py
	$(BIN)/python scripts/solutions_page.py
	$(BIN)/python scripts/benchmark_page.py
	$(BIN)/python scripts/experiment_page.py
	$(BIN)/python scripts/teaching_pages.py

# Where the records go, and how many independent runs there are.
DEVICE ?= cpu
RUNS ?= 5
RECORDS := book/data/benchmarks

benchmark: $(VENV)/.everything  ## Measure the full suite RUNS times on one core, and record it (long)
	$(BIN)/python -m pip install -q -r requirements/benchmark.txt
	for run in $$(seq $(RUNS)); do OMP_NUM_THREADS=1 $(BIN)/python -m \
	attn_tutorial.benchmark run --device cpu --threads 1 \
	--out $(RECORDS)/$(DEVICE)-$$run.json || exit 1; done

# Installs nothing: PYTHON=... names an interpreter whose PyTorch fits the driver.
gpu:  ## On a machine with an NVIDIA GPU: test and time it in MINUTES=10, into OUT=gpu-run
	PYTHON=$(PYTHON) bash scripts/gpu.sh "$(or $(OUT),gpu-run)" "$(or $(MINUTES),10)"

mutants: $(VENV)/.everything  ## Break the code on purpose and see the tests notice (long)
	$(BIN)/python tests/mutants.py

stable: $(VENV)/.everything  ## Compare stored numbers with other thread counts and CPU types
	for threads in 1 2; do for cpu in default avx2; do \
	echo "threads: $$threads, instructions: $$cpu"; \
	OMP_NUM_THREADS=$$threads ATEN_CPU_CAPABILITY=$$cpu $(BIN)/python -m pytest \
	-p no:cacheprovider --nbval $(NOTEBOOKS) || exit 1; done; done

versions:  ## Run the unit tests with the oldest releases, Colab's, the pinned, the newest
	PYTHON=$(PYTHON) bash scripts/versions.sh $(VERSIONS)

colab:  ## Run each chapter alone, with what Colab brings (PYTHON=python3.13 is Colab's)
	PYTHON=$(PYTHON) bash scripts/colab.sh $(NOTEBOOKS)

hub: $(VENV)/.everything  ## Start a JupyterHub here and let a student run a chapter (needs npm)
	PYTHON=$(PYTHON) bash scripts/hub.sh

publish-as: $(VENV)/.book  ## Set the repository's address: OWNER=... REPO=...
	$(BIN)/python scripts/publish_as.py "$(OWNER)" "$(REPO)"

screens: $(VENV)/.everything browser site  ## Photograph the site's ten places anew, after a change that is meant
	SCREENS=write $(BIN)/python -m pytest -q tests/test_looks.py

# What the targets above rely on.

site: $(VENV)/.book
	@# After a failure nothing is kept, or the next build would skip the faulty pages.
	$(BIN)/jupyter-book build -W -n --keep-going . || { rm -rf _build; exit 1; }
	$(BIN)/python scripts/chinese.py build

unit: $(VENV)/.everything
	$(PYTEST)

# The largest chapters first, but for one that takes longer than it is large.
FIRST := notebooks/applications.ipynb
chapters: $(VENV)/.everything
	$(PYTEST) -p no:cacheprovider --nbval \
	$(filter $(FIRST),$(NOTEBOOKS)) $(filter-out $(FIRST),$(NOTEBOOKS))

browser:
	@bash scripts/browser.sh

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	echo "Python's venv module is incomplete; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(VENV)/.book: requirements/book.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -r requirements/book.txt
	@touch $@

$(VENV)/.everything: requirements.txt requirements/book.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -r requirements.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@# Triton has no wheels for some systems: its tests are skipped there, and say so.
	$(BIN)/python -c 'import triton' 2>/dev/null \
	|| $(BIN)/python -m pip install -q -r requirements/triton.txt \
	|| echo "Triton cannot be installed here: the tests of its kernels are skipped."
	@touch $@ $(VENV)/.book
