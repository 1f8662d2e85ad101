#!/usr/bin/env bash
# The site file's Python where slowed.py is to come between; other programs run as they are.
case ${1-} in
    *pretrain.py) exec "$REAL_PYTHON" "$(dirname "$0")/slowed.py" "$@" ;;
    *) exec "$REAL_PYTHON" "$@" ;;
esac
