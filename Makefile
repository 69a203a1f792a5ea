# The two commands that matter need no make:
#   go run ./cmd/quire run examples -o out
#   go test ./...

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
# Packages without cgo, and without a server of their own, under the race detector.
RACE = ./orchestrator ./orchestrator/internal/batch ./orchestrator/internal/slab ./orchestrator/internal/measure ./orchestrator/layout \
       ./orchestrator/report ./orchestrator/sink ./orchestrator/walk ./orchestrator/plan ./orchestrator/doctor ./tritonclient ./tritonclient/guard ./tritonclient/tritontest

.PHONY: help build test race torture chaos soak lint gen picture check clean

help:   ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

build:  ## build ./quire
	go build -o quire ./cmd/quire

test:   ## all tests, against a real Triton
	go test ./...

race:   ## the packages without cgo under the race detector
	go test -race $(RACE)

torture: ## a hundred runs that are killed at random moments, and resumed
	go test -timeout 60m -v -run TestKilledRunsResume ./cmd/quire -rounds 100

chaos:  ## 20,000 simulations of the engine among everything that may go wrong
	go test -run TestChaos ./orchestrator -seeds 20000

soak: build ## 20,000 pages with a fault every few seconds (docs/soak.md)
	python3 scripts/soak.py --quire ./quire

lint:   ## gofmt, vet, staticcheck, and the generated code is what the generator makes
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on these'; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	scripts/genproto --check

gen:    ## make the generated code anew
	scripts/genproto

picture: ## make README's picture anew
	go run ./cmd/quire run examples/paper.pdf -o out/picture --overlay
	mkdir -p docs
	cp out/picture/paper.pdf.pages/0001.png docs/paper-page-1.png

check: lint test race ## lint, test and race

clean:  ## remove what building left
	rm -rf quire out model_repository/layout/1
