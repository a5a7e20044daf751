# Everything that running from this checkout needs; use:  . scripts/env.sh   (bash, zsh or sh, from any folder)
# The source folder comes before the installed copy, so that an edit counts at once; generated messages come from install/.

if [ -n "${BASH_SOURCE:-}" ]; then
    INSTSEG_ENV=$(cd "$(dirname "${BASH_SOURCE[0]:-$BASH_SOURCE}")/.." && pwd)
elif [ -n "${ZSH_VERSION:-}" ]; then
    INSTSEG_ENV=$(eval 'cd "$(dirname "${(%):-%x}")/.." && pwd')  # eval: other shells cannot parse it
elif [ -f scripts/env.sh ]; then
    INSTSEG_ENV=$(pwd)
else
    echo "source scripts/env.sh from the root of the checkout" >&2
    return 1
fi
export INSTSEG_ENV
_instseg_install="$INSTSEG_ENV/install/instseg_ros"

_instseg_prepend() {  # VARIABLE FOLDER: put it first, once
    eval "_instseg_value=\${$1:-}"
    case ":$_instseg_value:" in
        *":$2:"*) ;;
        *) eval "export $1=\"$2\${_instseg_value:+:\$_instseg_value}\"" ;;
    esac
}

_instseg_prepend PATH "$INSTSEG_ENV/.venv/bin"
for _instseg_folder in "$_instseg_install"/lib/python3*/*-packages "$_instseg_install"/local/lib/python3*/*-packages; do
    [ -d "$_instseg_folder" ] && _instseg_prepend PYTHONPATH "$_instseg_folder"
done
_instseg_prepend PYTHONPATH "$INSTSEG_ENV"
if [ "$(cat "$INSTSEG_ENV/.ros/mode" 2>/dev/null)" = wheels ]; then
    _instseg_prepend AMENT_PREFIX_PATH "$INSTSEG_ENV/.venv"
    for _instseg_folder in "$INSTSEG_ENV"/.venv/lib/python3*/site-packages/ros_*.libs "$INSTSEG_ENV/.venv/lib"; do
        [ -d "$_instseg_folder" ] && _instseg_prepend LD_LIBRARY_PATH "$_instseg_folder"
    done
fi
if [ -d "$_instseg_install" ]; then
    _instseg_prepend AMENT_PREFIX_PATH "$_instseg_install"
    _instseg_prepend LD_LIBRARY_PATH "$_instseg_install/lib"
fi
unset -f _instseg_prepend
unset _instseg_install _instseg_folder _instseg_value
