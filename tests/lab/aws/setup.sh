#!/bin/sh
# Makes the Python that the lab's AWS runs in: setup.sh DIRECTORY makes DIRECTORY/lab-python-<hash of requirements.txt>.
set -eu
tools=${1:-${CARGO_TARGET_DIR:-target}/tools}
here=$(dirname "$0")
venv=$("$here/../../venv.sh" lab-python "$here/requirements.txt" "$tools")
echo "the lab's Python: $venv"
