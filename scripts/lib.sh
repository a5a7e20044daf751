# Words and helpers shared by the set-up scripts; sourced, POSIX sh.

root=$(cd "$(dirname "$0")/.." && pwd)
venv="$root/.venv"
state="$root/.ros"
vpython="$venv/bin/python"

say() { printf '[instseg] %s\n' "$*"; }
fail() { printf '[instseg] error: %s\n' "$*" >&2; exit 1; }

# Installs Debian packages if this is root on a machine with apt-get; otherwise returns 1.
apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
    say "installing Debian packages: $*"
    apt-get update -qq >/dev/null 2>&1 || say "apt-get update failed, going on with the lists that are there"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# pip of the environment, patient with a shaky network.
pip_install() {
    "$vpython" -m pip install --quiet --disable-pip-version-check --retries 10 --timeout 60 "$@"
}

# sourced: a ROS 2 is in the environment. wheels: it comes from wheels. none: neither is possible here.
ros_mode() {
    if [ -n "${INSTSEG_ENV:-}" ] && [ -f "$state/mode" ]; then  # scripts/env.sh is active: what it was made for counts
        cat "$state/mode"
    elif [ -n "${AMENT_PREFIX_PATH:-}" ] && "${PYTHON:-python3}" -c 'import rclpy' >/dev/null 2>&1; then
        echo sourced
    elif [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] \
        && "${PYTHON:-python3}" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'; then
        echo wheels
    else
        echo none
    fi
}
