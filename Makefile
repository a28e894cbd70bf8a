# Everything a developer types. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help demo test check oracle bench wheel clean
BIN := .venv/bin

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## record real traffic on this machine for a few seconds and print the report
	@tools/setup.sh demo
	@tools/venv.sh
	@$(BIN)/python tools/demo.py

test: ## install what the tests need and run all of them
	@tools/setup.sh test
	@$(MAKE) --no-print-directory check
	@tools/test.sh

check: ## formatting, linting, types, layer rules
	@tools/venv.sh dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

oracle: ## compare with tshark on every capture of the corpus, where `make test` takes some of them
	@tools/setup.sh test
	@tools/venv.sh dev
	@tools/test.sh --whole-corpus tests/streams/test_follow_corpus.py

bench: ## measure the recorder and the engine on this machine
	@tools/setup.sh bench
	@tools/venv.sh dev
	@for bench in benchmarks/bench_*.py; do $(BIN)/python "$$bench" || exit 1; done

wheel: ## build dist/*.whl and the source archive
	@tools/venv.sh dev
	$(BIN)/python -m build

clean: ## remove everything that can be made again
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
