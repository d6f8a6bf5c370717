# pgflume as a container image: `docker build -t pgflume .` or `make image`.
#
# The image holds the program, the libraries that it is linked to, the certificate authorities, and nothing else: no
# shell, no package manager, and no schema.json. So what is replicated has to be mounted:
#
#   docker run --rm --env-file .env -v ./schema.json:/pgflume/schema.json:ro -p 127.0.0.1:3000:3000 pgflume
#
# The base image is an argument, so that it can be built on another (a mirror, a newer Debian).
ARG RUST_IMAGE=rust:1-slim-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
# Line tables stay out of the image; symbol names stay in, for backtraces.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
# Dependencies and their object files are kept in the builder's cache, so that a rebuild compiles
# this crate alone. All of them are fetched first: the build script reads Cargo's metadata offline.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo fetch --locked \
 && cargo build --release --locked --offline \
 && cp target/release/pgflume /usr/local/bin/pgflume
# Everything that the image is made of, below /image. The libraries are those that ldd names, at their paths.
RUN set -eu; \
    install -D -t /image/usr/local/bin /usr/local/bin/pgflume; \
    install -D -m 644 -t /image/etc/ssl/certs /etc/ssl/certs/ca-certificates.crt; \
    install -D -m 644 -t /image/usr/share/doc/pgflume LICENSE-MIT LICENSE-APACHE; \
    ldd /usr/local/bin/pgflume | grep -o '/[^ ]*' | xargs cp --parents --dereference --target-directory=/image; \
    # names of /etc/hosts before those of DNS, as everywhere
    echo 'hosts: files dns' >/image/etc/nsswitch.conf; \
    install -d /image/pgflume; \
    # for a replica that is a file; and where SQLite sorts what is large
    install -d -o 10001 -g 10001 -m 700 /image/data; \
    install -d -m 1777 /image/tmp; \
    # it starts there, too
    chroot /image /usr/local/bin/pgflume --version

FROM scratch
COPY --from=build /image /
# `make image` says them.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pgflume" \
      org.opencontainers.image.description="Keeps a libSQL/SQLite copy of chosen Postgres tables fresh, through PGMQ" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A number, so that Kubernetes' runAsNonRoot can check it.
USER 10001:10001
# Also where pgflume.json is looked for.
WORKDIR /pgflume
# A whole path, so that the error without a mount names it.
ENV SCHEMA_FILE=/pgflume/schema.json HOST=0.0.0.0 PORT=3000
EXPOSE 3000
# For a replica that is a file, LIBSQL_URL=file:/data/replica.db: mount a volume at /data.
# No HEALTHCHECK: nothing in the image could ask. Let whatever runs it ask GET /live.
ENTRYPOINT ["/usr/local/bin/pgflume"]
CMD ["serve"]
