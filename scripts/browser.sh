#!/usr/bin/env bash
# Find Chromium for the browser tests; where it is missing, install it if that is allowed.
set -u

find_chromium() {
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable \
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"; do
        if [ -n "$name" ] && command -v "$name" >/dev/null; then return 0; fi
    done
    return 1
}

find_chromium && exit 0
if command -v apt-get >/dev/null; then
    if [ "$(id -u)" = 0 ]; then as_root=""; else as_root="sudo -n"; fi
    if $as_root true 2>/dev/null; then
        echo "Installing Chromium for the browser tests ..."
        $as_root apt-get update -qq
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            chromium fonts-dejavu-core >/dev/null
    fi
fi
find_chromium && exit 0

echo "The browser tests need Chromium or Chrome, and none was found."
echo "Install it (Debian: sudo apt install chromium) or name it: CHROMIUM=/path/to/chromium make test"
if [ -n "${CI:-}" ]; then exit 1; fi
echo "Going on without them: they will be reported as skipped."
