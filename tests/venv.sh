#!/bin/sh
# Makes a Python with the packages of a list, unless it is there, and prints where it is:
# venv.sh NAME LIST DIRECTORY makes DIRECTORY/NAME-<hash of the list>.
# Needs python3 with venv (Debian: python3, python3-venv), and PyPI the first time.
#
# Start its Python programs with `bin/python -m`. Their first lines name the directory in which the venv was made, and it
# was renamed afterwards.
set -eu
name=$1
list=$2
directory=$3
hash=$(sha256sum "$list" | cut -c1-16)
venv=$directory/$name-$hash
if [ ! -x "$venv/bin/python" ]; then
    mkdir -p "$directory"
    new=$directory/$name.$$
    trap 'rm -rf "$new"' EXIT
    python3 -m venv "$new"
    "$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$list"
    "$new/bin/python" -m pip check >/dev/null
    # Another run may have been quicker.
    mv -T "$new" "$venv" 2>/dev/null || [ -x "$venv/bin/python" ]
fi
echo "$venv"
