#!/usr/bin/env bash
# The compiler of pipeline/compiled, and the tools that tests hold metrics, rules, dashboards and compose files to, installed
# where they are missing: Debian's packages, and Go from PyPI into .venv (Debian's may be too old).
set -euo pipefail
packages=()
command -v cc >/dev/null || packages+=(gcc libc6-dev)
{ command -v prometheus && command -v promtool; } >/dev/null || packages+=(prometheus)
command -v prometheus-pushgateway >/dev/null || packages+=(prometheus-pushgateway)
command -v amtool >/dev/null || packages+=(prometheus-alertmanager)
command -v go >/dev/null || .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/tools.lock
[ ${#packages[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "The tests need ${packages[*]} (names of Debian's packages): install them, then run this again." >&2
  exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
