#!/bin/sh
# Makes everything that `make build`, `make test` and `make demo` need: .venv with the package, and ROS 2 from wheels
# (ROS_WHEELS: jazzy or kilted) unless one is sourced. Called by the Makefile:  setup.sh venv | package | ros
set -eu
. "$(dirname "$0")/lib.sh"
: "${PYTHON:=python3}" "${ROS_WHEELS:=jazzy}"

make_venv() {
    command -v "$PYTHON" >/dev/null 2>&1 || fail "$PYTHON is not there: install Python 3.10 or newer, or name one: make PYTHON=python3.12"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
        || fail "$("$PYTHON" --version) is too old: Python 3.10 or newer is needed (make PYTHON=python3.12)"
    version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    case $(ros_mode) in sourced) set -- --system-site-packages ;; *) set -- ;; esac  # a sourced ROS uses the system's packages
    rm -rf "$venv"
    if has_ensurepip || { apt_install "python$version-venv" && has_ensurepip; }; then
        "$PYTHON" -m venv "$@" "$venv"
    else
        { "$PYTHON" -m venv --without-pip "$@" "$venv" && unpacked_pip; } || fail "Python's venv module is incomplete (no ensurepip).
    On Debian and Ubuntu: sudo apt-get install python$version-venv python$version-dev"
    fi
    say "environment $venv with $("$vpython" --version)"
}

has_ensurepip() { "$PYTHON" -c 'import venv, ensurepip; ensurepip.version()' >/dev/null 2>&1; }

# Without root and without ensurepip: Debian's pip wheel, unpacked into .ros/deb, installs pip into the environment.
unpacked_pip() {
    unpack_deb python3-pip-whl || return 1
    wheel=$(ls "$state"/deb/usr/share/python-wheels/pip-*.whl)
    "$vpython" "$wheel/pip" install --quiet --disable-pip-version-check --retries 10 --timeout 60 pip
}

# Unpacks a Debian package into .ros/deb; needs no root, changes nothing outside of the checkout.
unpack_deb() {
    command -v dpkg-deb >/dev/null 2>&1 && command -v apt-get >/dev/null 2>&1 || return 1
    mkdir -p "$state/deb"
    (cd "$state/deb" && rm -f ./*.deb && apt-get download -qq "$1" >/dev/null 2>&1) || return 1
    for package in "$state"/deb/*.deb; do dpkg-deb -x "$package" "$state/deb"; done
}

install_package() {
    case $(ros_mode) in sourced) set -- ;; *) set -- -c "$root/scripts/constraints.txt" ;; esac
    # Before anything that depends on it, so that no resolver goes for another (CUDA) build.
    torch=${TORCH:-torch==2.13.0}
    if "$vpython" -c 'import torch' >/dev/null 2>&1; then
        say "torch is there already"
    elif [ -n "${TORCH_INDEX:-}" ]; then
        say "installing $torch from $TORCH_INDEX"
        pip_install --index-url "$TORCH_INDEX" "$torch"
    else
        command -v nvidia-smi >/dev/null 2>&1 \
            || say "no NVIDIA GPU seen; if the download below is several GB, stop it and set TORCH_INDEX to PyTorch's CPU wheel index (README)"
        say "installing $torch"
        pip_install "$@" "$torch"
    fi
    pip_install 'setuptools>=64,<80' wheel
    if [ "$(ros_mode)" = sourced ]; then
        # The messages of a sourced ROS 2 are compiled against the system's numpy; a numpy of another major version breaks them.
        major=$("$PYTHON" -c 'import numpy; print(numpy.__version__.split(".")[0])' 2>/dev/null || echo)
        [ "$major" != 1 ] || set -- 'numpy<2'
        pip_install 'empy<4' lark catkin-pkg
    fi
    say "installing instseg_ros with its dependencies, compiling its kernels"
    cd "$root"
    pip_install --no-build-isolation -e '.[dev]' "$@"
    libraries="libgl1 libgomp1 libusb-1.0-0 libx11-6"  # that open3d links to
    # shellcheck disable=SC2086
    "$vpython" -c 'import open3d' >/dev/null 2>&1 || apt_install $libraries || true
    "$vpython" -c 'import open3d' >/dev/null 2>&1 \
        || fail "open3d does not import: $("$vpython" -c 'import open3d' 2>&1 | tail -n 1)
    On Debian and Ubuntu: sudo apt-get install $libraries"
}

install_ros() {
    mkdir -p "$state"
    mode=$(ros_mode)
    case $mode in
        sourced)
            say "ROS 2 ${ROS_DISTRO:-} is sourced: nothing of it is installed"
            command -v colcon >/dev/null 2>&1 || pip_install colcon-common-extensions ;;
        wheels)
            pins="$root/scripts/ros-$ROS_WHEELS-wheels.txt"
            [ -f "$pins" ] || fail "there are no wheels of ROS 2 '$ROS_WHEELS': ROS_WHEELS is jazzy or kilted"
            there=$(cat "$state/wheels" 2>/dev/null || echo "$ROS_WHEELS")
            [ "$there" = "$ROS_WHEELS" ] || fail "this checkout has ROS 2 $there; make clean first, or use a clone of its own for $ROS_WHEELS"
            echo "$ROS_WHEELS" >"$state/wheels"
            say "installing ROS 2 $ROS_WHEELS from wheels"
            if ! pip_install -r "$pins" -c "$root/scripts/constraints.txt"; then
                say "the ROS 2 wheels could not be installed; going on without ROS 2"
                mode=none
            elif ! python_headers; then
                say "Python.h is missing, so the messages cannot be built (sudo apt-get install python3-dev); going on without ROS 2"
                mode=none
            else
                "$vpython" "$root/scripts/mend_ros_wheels.py" "$(cat "$state/python_include")"
            fi ;;
        none) say "no ROS 2 is sourced and there are no ROS 2 wheels for $("$vpython" --version) on $(uname -m); going on without ROS 2" ;;
    esac
    echo "$mode" >"$state/mode"
}

# Finds the headers of the interpreter, or gets them; writes their folder to .ros/python_include.
python_headers() {
    include=$("$vpython" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    if [ ! -f "$include/Python.h" ]; then
        version=$("$vpython" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        if ! apt_install "libpython$version-dev"; then
            unpacked_headers "$version" || return 1
            include="$state/deb/usr/include/python$version"
        fi
    fi
    [ -f "$include/Python.h" ] || return 1
    echo "$include" >"$state/python_include"
}

# Without root: the same Debian package, unpacked into .ros/deb.
unpacked_headers() {
    unpack_deb "libpython$1-dev" || return 1
    # Debian's pyconfig.h only forwards to the folder of the machine's architecture, which it looks up beside its own.
    for folder in "$state"/deb/usr/include/*-linux-gnu/"python$1"; do
        [ -d "$folder" ] && cp "$folder/pyconfig.h" "$state/deb/usr/include/python$1/pyconfig.h"
    done
}

case ${1:-} in
    venv) make_venv ;;
    package) install_package ;;
    ros) install_ros ;;
    *) fail "usage: scripts/setup.sh venv|package|ros (make setup calls all three)" ;;
esac
