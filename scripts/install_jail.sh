#!/bin/sh
# Make sure that bubblewrap, which jails code of answers, is installed. Always ends with 0, and prints the state.
set -u

if command -v bwrap >/dev/null 2>&1; then
    echo "jail: $(bwrap --version) is installed"
    exit 0
fi
if [ "$(uname -s)" != Linux ]; then
    echo "jail: none; jails need Linux, so checks that run code are refused on $(uname -s)"
    exit 0
fi

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        as_root="sudo -n"
    else
        as_root="none"
    fi
fi
if [ "$as_root" != none ]; then
    if command -v apt-get >/dev/null 2>&1; then
        { $as_root apt-get update -qq && $as_root apt-get install -y -qq bubblewrap; } >/dev/null 2>&1
    elif command -v dnf >/dev/null 2>&1; then
        $as_root dnf install -y -q bubblewrap >/dev/null 2>&1
    elif command -v pacman >/dev/null 2>&1; then
        $as_root pacman -Sy --noconfirm --quiet bubblewrap >/dev/null 2>&1
    fi
fi
if command -v bwrap >/dev/null 2>&1; then
    echo "jail: $(bwrap --version) is now installed"
else
    echo "jail: none; checks that run code are refused until bubblewrap is installed:"
    echo "  Debian, Ubuntu: sudo apt-get install bubblewrap"
    echo "  Fedora:         sudo dnf install bubblewrap"
    echo "  Arch:           sudo pacman -S bubblewrap"
fi
exit 0
