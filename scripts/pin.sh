#!/bin/sh
# Renews constraints.txt: the newest versions, for Python 3.10 and later, of all that make setup installs from PyPI but torch
# and ROS 2 itself. Needs uv. Run it, then `make clean test` with each Python that is supported.
set -eu
cd "$(dirname "$0")/.."
{
    sed -n '/^#/p; /^#/!q' scripts/constraints.txt
    uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate --no-emit-find-links --no-emit-index-url \
        --extra dev setup.py scripts/pin.in |
        grep -vE "^(torch|triton|nvidia-|cuda-|setuptools)|== '(emscripten|win32)'"
} >scripts/constraints.new
mv scripts/constraints.new scripts/constraints.txt
