#!/bin/sh
# Builds the messages and the package with colcon into build/ and install/, with a sourced ROS 2 or the one from wheels.
set -eu
. "$(dirname "$0")/lib.sh"
mode=$(cat "$state/mode" 2>/dev/null) || fail "run make setup first"
cd "$root"
if [ "$mode" = none ]; then
    say "no ROS 2 on this machine: the ROS messages and nodes are not built"
    exit 0
fi
colcon=$(command -v colcon || echo "$venv/bin/colcon")
set -- -DPython3_EXECUTABLE="$vpython" -DPython3_FIND_VIRTUALENV=ONLY
if [ "$mode" = wheels ]; then
    export AMENT_PREFIX_PATH="$venv" CMAKE_PREFIX_PATH="$venv"
    export PATH="$venv/bin:$PATH"
    colcon="$venv/bin/colcon"
    set -- "$@" -DPython3_INCLUDE_DIR="$(cat "$state/python_include")"
    # The build runs rosidl and must not meet another environment's libraries.
    unset PYTHONPATH LD_LIBRARY_PATH COLCON_PREFIX_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE || true
fi
mkdir -p log
if ! "$colcon" --log-base log build --base-paths . --packages-select instseg_ros --event-handlers console_direct+ \
    --cmake-args -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF "$@" >log/make_build.txt 2>&1; then
    tail -n 60 log/make_build.txt >&2
    fail "colcon build failed (all of it: log/make_build.txt)"
fi
say "built with ROS 2 ($mode) into install/"
