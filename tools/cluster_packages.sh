#!/bin/sh
# Installs what a test cluster needs from the system's packages (Debian, Ubuntu). Go comes from elsewhere. Safe to repeat.
set -eu
packages="runc containerd containernetworking-plugins nftables iptables busybox-static conntrack iproute2 util-linux tcpdump curl openssl"

say() { printf '\033[2m›\033[0m %s\n' "$*" >&2; }

if ! command -v apt-get >/dev/null 2>&1; then
  say "without apt-get: install these yourself: $packages"
  exit 1
fi
if [ "$(id -u)" != 0 ]; then
  say "run as root: apt-get install $packages"
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
say "installing $packages"
# shellcheck disable=SC2086 # words on purpose
apt-get install -y -qq --no-install-recommends $packages >/dev/null 2>&1 || {
  apt-get update -qq >/dev/null
  apt-get install -y -qq --no-install-recommends $packages >/dev/null
}
