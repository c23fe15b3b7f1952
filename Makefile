# demo and test build the environment first; There is no web app yet, so APP=0, which will stop before it, changes nothing.
VENV ?= .venv
BIN := $(VENV)/bin
export RAGKIT_STORE ?= .ragkit/store

.PHONY: demo test prove check bench clean

$(VENV)/.installed: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mini,train,dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/ragkit ingest apps/corpus/mul/corpus.jsonl --corpus selvara
	$(BIN)/python -m apps.tour

test: $(VENV)/.installed
	$(BIN)/python -m pytest

prove: $(VENV)/.installed  # the tests at the full counts: takes much longer
	RAGKIT_PROVE=1 $(BIN)/python -m pytest

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest tests/test_layers.py

bench: $(VENV)/.installed  # EMBEDDINGS=rows.npy, (N, D) floats
	$(BIN)/python benchmarks/store.py --embeddings $(EMBEDDINGS)

clean:
	rm -rf $(VENV) .ragkit
