# Everything that is typed by hand or run by CI. `make help` lists it.
export GOTOOLCHAIN := local
export CGO_ENABLED := 0

COMMIT  := $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/school-sms/sms/api/server.Version=0.1.0 -X github.com/school-sms/sms/api/server.Commit=$(COMMIT)

STATICCHECK   := honnef.co/go/tools/cmd/staticcheck@v0.8.2
WORKFLOWCHECK := go.temporal.io/sdk/contrib/tools/workflowcheck@v0.6.0

.DEFAULT_GOAL := help
.PHONY: help up build test lint bench soak soak-zero-loss soak-backups soak-rollouts e2e-docker clean deps

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: build ## install what is missing, build, and run the whole platform on this machine
	@exec bin/sms up

deps: ## install what is missing of PostgreSQL (apt)
	@deploy/debian/install

build: deps ## build every program into bin/
	@echo "building (the first time takes some minutes)"
	@go build -trimpath -ldflags "$(LDFLAGS)" -o bin/ ./cmd/...
	@cd cmd/temporal-server && go build -trimpath -ldflags "-s -w" -o ../../bin/temporal-server .

# -w: without tables for debuggers, which take a second of each link.
test: build ## run every test: unit, PostgreSQL, Temporal, replay, and end to end on `sms up`
	@deploy/debian/install test && test/clients/install
	@start=$$(date +%s); \
	go test -trimpath -ldflags=-w -timeout 40m ./... && (cd cmd/temporal-server && go test -trimpath ./...) && \
	echo "make test took $$(( $$(date +%s) - start )) s"

lint: ## gofmt, go vet, staticcheck, workflowcheck, and the floors of the house
	@files=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$files" ] || { echo "gofmt would change: $$files"; exit 1; }
	@go vet -tags clocks ./... && (cd cmd/temporal-server && go vet ./...) && cd test/clients/fargo && go vet ./...
	@go run $(STATICCHECK) ./...
	@go run $(WORKFLOWCHECK) -config workflows/workflowcheck.yaml ./workflows/...
	@go test -count=1 ./test/floors

bench: build ## measure, and print the figures that bench/ holds
	@bench/install
	@go test -count=1 -timeout 60m -run '^$$' -bench . -benchtime 1x ./bench/...

soak: build ## restart every service 20 times under load, and kill -9 20 times: docs/evidence/restarts.txt
	@SMS_E2E_RESTARTS=20 go test -count=1 -timeout 30m -v -run TestRestartsLoseNothing ./test/e2e

soak-zero-loss: build ## roll out, abort and roll back every service 20 times under load: docs/evidence/zero-loss.txt
	@SMS_E2E_ROLLOUTS=20 go test -count=1 -timeout 120m -v -run TestZeroLoss ./test/e2e

soak-backups: build ## damage backups in every way, make 100 while others write, kill -9 what makes them: docs/evidence/backup-*.txt
	@SMS_BACKUP_DAMAGES=200 SMS_BACKUP_WRITER_RUNS=100 go test -count=1 -timeout 60m -parallel 1 -v \
	    -run 'TestDamagesAreFoundAndNeverVerified|TestConcurrentWritersCauseNoFalseFailure' ./internal/backup
	@SMS_BACKUP_KILLS=20 go test -count=1 -timeout 60m -parallel 5 -v -run TestBackupsSurviveKills ./test/operations

soak-rollouts: build ## kill -9 around every activity of a rollout, freeze its worker, shift its clock, black-hole its target: docs/evidence/rollout-*.txt
	@SMS_ROLLOUT_KILLS=$${SMS_ROLLOUT_KILLS:-all} go test -tags clocks -count=1 -timeout 8h -parallel 5 -v \
	    -run 'TestRolloutsSurviveKills|TestFrozenWorkerIsFenced|TestWorkerClocksDoNotMatter' ./test/e2e
	@SMS_BLACK_HOLE=10m go test -count=1 -timeout 4h -parallel 3 -v -run TestBlackHoledTarget ./test/e2e

e2e-docker: ## build the images and run the platform in containers on a Docker engine
	@deploy/docker/e2e

clean: ## remove what was built
	@rm -rf bin
