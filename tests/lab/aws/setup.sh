#!/bin/sh
# Makes the Python that the lab's AWS runs in: setup.sh DIRECTORY makes DIRECTORY/lab-python-<hash of requirements.txt>.
# Needs python3 with venv (Debian: python3, python3-venv), and PyPI the first time.
set -eu
tools=${1:-${CARGO_TARGET_DIR:-target}/tools}
requirements=$(dirname "$0")/requirements.txt
hash=$(sha256sum "$requirements" | cut -c1-16)
venv=$tools/lab-python-$hash
if [ -x "$venv/bin/python" ]; then
    echo "the lab's Python is there: $venv"
    exit
fi
mkdir -p "$tools"
new=$tools/lab-python.$$
trap 'rm -rf "$new"' EXIT
python3 -m venv "$new"
"$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$requirements"
"$new/bin/python" -m pip check
# Another run may have been quicker.
mv -T "$new" "$venv" 2>/dev/null || [ -x "$venv/bin/python" ]
echo "the lab's Python was made: $venv"
