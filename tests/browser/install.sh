#!/bin/sh
# Debian's chromium and the fonts that its pages are drawn with: installed where that is allowed, named where it is not.
set -eu
packages="chromium fonts-dejavu-core fonts-liberation"
missing=""
for package in $packages; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "make browser-test needs Debian's packages$missing: sudo apt-get install$missing" >&2
    exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $missing >/dev/null
