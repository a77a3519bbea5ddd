#!/bin/sh
# Print the first Python from 3.11 on that runs here; what is only named (a shim of pyenv, a broken link) is passed by.
for name in python3.13 python3.12 python3.11 python3.14 python3 python; do
    if "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        command -v "$name"
        exit 0
    fi
done
echo "error: there is no Python 3.11 or newer with venv and pip here" >&2
echo "hint: install one (Debian: apt install python3-venv), or say where it is: make PYTHON=/path/to/python3 ..." >&2
exit 1
