#!/bin/sh
# Builds MinkowskiEngine 0.5.4 from its source on PyPI for the CPU and installs it into .venv; called by `make test-minkowski`.
# MAX_JOBS=n limits the compilers at work.
set -eu
. "$(dirname "$0")/lib.sh"

installed() { "$vpython" -c 'from instseg_ros.models.minkowski import load_minkowski; load_minkowski()' >/dev/null 2>&1; }

[ -x "$vpython" ] || fail "$venv is not there: run make setup first"
cd "$root"
if installed; then
    say "MinkowskiEngine is there already"
    exit 0
fi
"$vpython" -c 'import sys; sys.exit(sys.version_info >= (3, 12))' \
    || fail "$("$vpython" --version) has no distutils, which MinkowskiEngine's build needs: use an environment of Python 3.10 or 3.11 (make clean, make PYTHON=python3.11)"
printf '#include <cblas.h>\nint main() { return 0; }\n' | ${CXX:-c++} -x c++ -fsyntax-only - >/dev/null 2>&1 \
    || apt_install libopenblas-dev \
    || fail "a C++ compiler and OpenBLAS's headers are needed. On Debian and Ubuntu: sudo apt-get install g++ libopenblas-dev"

# Its setup.py imports torch and numpy.distutils, so it is built in this environment with the setuptools of its time; the
# environment's own comes back whatever happens.
before=$("$vpython" -c 'import setuptools; print(setuptools.__version__)')
trap 'pip_install "setuptools==$before"' EXIT
pip_install 'setuptools==65.5.1' wheel ninja
mkdir -p "$state"
say "building MinkowskiEngine; this takes about a quarter of an hour"
PATH="$venv/bin:$PATH" SETUPTOOLS_USE_DISTUTILS=stdlib CUDA_VISIBLE_DEVICES= \
    "$vpython" -m pip install --disable-pip-version-check --no-deps --no-build-isolation MinkowskiEngine==0.5.4 >"$state/minkowski.log" 2>&1 \
    || fail "the build failed: $(grep -m 1 -i 'error' "$state/minkowski.log" || tail -n 1 "$state/minkowski.log")
    The whole of it: .ros/minkowski.log"
installed || fail "MinkowskiEngine was built and does not import: $("$vpython" -c 'from instseg_ros.models.minkowski import load_minkowski; load_minkowski()' 2>&1 | tail -n 1)"
say "MinkowskiEngine is installed"
